"""The whole of AIMv2's pre-training, reproduced: predictions and both losses of the authors' training code."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import attrs
import numpy as np
import pytest
import torch
from golden_files import assert_golden, tensors
from torch import Tensor

from aimcore import Attention, Batch, Reading, Text, TextTokenizer, component
from aimcore.contracts.images import images_of
from aimcore_decoders import JointDecoder
from aimcore_objectives import steps as steps_room
from aimcore_objectives.multimodal import Multimodal, MultimodalModule
from aimcore_trunks import ViT, from_released

PADDING = 1


@component("golden")
class GoldenTokenizer(TextTokenizer):
    """Sixty-one ids; the golden files hold the captions as ids already."""

    @property
    def vocabulary_size(self) -> int:
        return 61

    def encode(self, texts: Sequence[str], context_length: int) -> Text:
        raise NotImplementedError

    def decode(self, ids: Sequence[int]) -> str:
        raise NotImplementedError


NAMES = {
    "text_decoder.head.blocks.0.linear": "to_tokens",
    "text_decoder.head.blocks.1.linear": "to_patches",
    "preprocessor.text_preprocessor.cls_token": "text_inputs.begin",
    "preprocessor.text_preprocessor.positional_embedding": "text_inputs.positions",
    "preprocessor.text_preprocessor.text_embedding": "text_inputs.embedding",
    "preprocessor.vision_preprocessor.module": "project",
    "trunk.post_trunk_norm": "norm",
    "trunk.blocks": "blocks",
    "attn.q_proj": "attention.query",
    "attn.k_proj": "attention.key",
    "attn.v_proj": "attention.value",
    "attn.proj": "attention.out",
    ".mlp.": ".ffn.",
    "models.text_decoder.": "",
}


def _decoder_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for key, value in state.items():
        for theirs, ours in NAMES.items():
            key = key.replace(theirs, ours)
        renamed[key.removeprefix("models.")] = value.squeeze() if key.endswith("begin") else value
    return renamed


@cache
def _module() -> MultimodalModule:
    weights = tensors("aim_v2_pretraining.weights")
    trunk = ViT(
        width=64, depth=4, num_heads=4, norm="rms_norm", norm_eps=1e-5, ffn="swiglu", positions="learned", grid=(4, 4)
    ).build()
    objective = Multimodal(
        decoder=JointDecoder(width=48, depth=3, num_heads=4), tokenizer=GoldenTokenizer(), context_length=9
    )
    module = objective.build(trunk)
    image = {key: value for key, value in weights.items() if "image_encoder" in key}
    trunk.load_state_dict(from_released(image))
    module.decoder.load_state_dict(_decoder_state({k: v for k, v in weights.items() if k not in image}))
    return module


def _batch() -> Batch:
    golden = tensors("aim_v2_pretraining.io")
    ids_BT = golden["text_ids"]
    text = Text(ids_BT=ids_BT, valid_BT=ids_BT != PADDING)
    return Batch(images=images_of(golden["pixels"], 14), sample_numbers_B=torch.arange(3), text=text)


@pytest.fixture
def _golden_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = tensors("aim_v2_pretraining.io")["prefix_length"].numpy().astype(np.int64)
    monkeypatch.setattr(steps_room, "first_targets", lambda *_, **__: prefix)


@torch.no_grad()
def test_every_prediction_of_patches_and_tokens_is_reproduced() -> None:
    golden, batch, module = tensors("aim_v2_pretraining.io"), _batch(), _module()
    attention = Attention(causal=True, prefix_length_B=golden["prefix_length"])
    features = module.trunk(batch.images, Reading(attention=attention))
    # The last output of theirs, behind the last token, predicts nothing.
    patches_MK, logits_MV = module.decoder(features, attention, batch.text, torch.arange(48), torch.arange(27))
    assert_golden(patches_MK, golden["image_predictions"].flatten(0, 1))
    assert_golden(logits_MV, golden["text_logits"][:, :9].flatten(0, 1))


@pytest.mark.usefixtures("_golden_prefix")
@torch.no_grad()
def test_both_losses_and_their_weighted_sum_are_reproduced() -> None:
    golden = tensors("aim_v2_pretraining.io")
    losses = _module().train()(_batch())
    means = {name: loss.sum / loss.num_targets for name, loss in losses.items()}
    assert_golden(means["image"], golden["image_loss"])
    assert_golden(means["text"], golden["text_loss"])
    assert_golden(sum(losses[name].weight * mean for name, mean in means.items()), golden["total"])  # type: ignore[arg-type]


@torch.no_grad()
def test_tokens_one_at_a_time_have_the_logits_of_the_whole_caption() -> None:
    batch, module = _batch(), _module()
    assert batch.text is not None
    features = module.trunk(batch.images, Reading())
    whole = module.decoder(features, Attention(), batch.text, None, torch.arange(27)).logits_MV.reshape(3, 9, -1)
    logits_BV, state = module.decoder.start(features, Attention())
    assert_golden(logits_BV, whole[:, 0])
    for position in range(8):
        logits_BV, state = module.decoder.step(batch.text.ids_BT[:, position], state)
        assert_golden(logits_BV, whole[:, position + 1])


@torch.no_grad()
def test_what_stands_in_padding_changes_nothing() -> None:
    batch, module = _batch(), _module().eval()
    assert batch.text is not None
    ids_BT = torch.where(batch.text.valid_BT, batch.text.ids_BT, 17)
    before = module(batch)["text"]
    after = module(attrs.evolve(batch, text=attrs.evolve(batch.text, ids_BT=ids_BT)))["text"]
    assert not batch.text.valid_BT.all()
    assert before.sum == after.sum
    assert before.num_targets == after.num_targets == int(batch.text.valid_BT.sum())
