"""The released LiT model's towers, reproduced."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from golden_files import assert_golden, tensors
from torch import Tensor
from torch.nn import functional

from aimcore import Data, Engine, Experiment, InvalidValue, Reading, Text, TextTokenizer, component
from aimcore.contracts.images import images_of
from aimcore_objectives import Contrastive
from aimcore_objectives.contrastive import ContrastiveModule
from aimcore_objectives.contrastive_loss import sigmoid_loss, softmax_loss
from aimcore_objectives.towers import TextTower
from aimcore_sources import BundledFashionMNIST
from aimcore_trunks import ViT, from_released

TEXT = {"text_embedding": "embedding", "positional_embedding": "positions", "mlp": "ffn", "attn.proj": "attention.out",
        "post_trunk_norm": "norm"}  # fmt: skip


@component("golden_lit")
class GoldenTokenizer(TextTokenizer):
    """Ninety-seven ids, of which the last is the end; the golden files hold the captions as ids already."""

    @property
    def vocabulary_size(self) -> int:
        return 97

    @property
    def begin_id(self) -> int | None:
        return None

    @property
    def end_id(self) -> int | None:
        return 96

    @property
    def padding_id(self) -> int:
        return 0

    def encode(self, texts: Sequence[str], context_length: int) -> Text:
        raise NotImplementedError

    def decode(self, ids: Sequence[int]) -> str:
        raise NotImplementedError


def _text_state(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    state = {"project.weight": weights["text_projector.weight"]}
    for key, value in weights.items():
        if key.startswith("text_encoder."):
            name = key.removeprefix("text_encoder.").removeprefix("preprocessor.").removeprefix("trunk.")
            for theirs, ours in TEXT.items():
                name = name.replace(theirs, ours)
            if "attn.qkv" in name:
                parts = zip(("query", "key", "value"), value.chunk(3), strict=True)
                state |= {name.replace("attn.qkv", f"attention.{part}"): third for part, third in parts}
            else:
                state[name] = value
    return state


def _module() -> ContrastiveModule:
    weights = tensors("aim_v2_lit.weights")
    trunk = ViT(
        width=64, depth=4, num_heads=4, norm="rms_norm", norm_eps=1e-5, ffn="swiglu", ffn_width=160,
        positions="learned", grid=(4, 4),
    ).build()  # fmt: skip
    objective = Contrastive(
        text_tower=TextTower(width=48, depth=3, num_heads=4, ffn_width=128), tokenizer=GoldenTokenizer(),
        context_length=12, embedding_width=24, num_pool_heads=4,
    )  # fmt: skip
    module = objective.build(trunk)
    image = {key: value for key, value in weights.items() if key.startswith("image_encoder.") and ".head." not in key}
    trunk.load_state_dict(from_released(image))
    pool = {key.split(".head.")[1]: value for key, value in weights.items() if ".head." in key}
    pool["query"] = pool.pop("cls_token").flatten()
    pool["key.weight"], pool["value.weight"] = pool.pop("k.weight"), pool.pop("v.weight")
    module.image_tower.load_state_dict({**pool, "project.weight": weights["image_projector.weight"]})
    module.text_tower.load_state_dict(_text_state(weights))
    module.scale.load_state_dict({"log_scale": weights["log_logit_scale"].reshape(1)})
    return module.eval()


@torch.no_grad()
def test_image_and_text_embeddings_and_their_logits_are_reproduced() -> None:
    golden, module = tensors("aim_v2_lit.io"), _module()
    ids_BT = golden["input_ids"]
    image_BE = module.image_tower(module.trunk(images_of(golden["pixels"], 14), Reading()))
    text_BE = module.text_tower(Text(ids_BT=ids_BT, valid_BT=torch.ones_like(ids_BT, dtype=torch.bool)))
    assert_golden(image_BE, golden["image_embeds"])
    assert_golden(text_BE, golden["text_embeds"])
    assert_golden(module.scale(image_BE @ text_BE.T), golden["logits_per_image"])


def test_the_scale_starts_at_the_papers_temperature_and_stays_below_a_hundred() -> None:
    trunk = ViT(width=16, depth=1, num_heads=2, patch_size=4).build()
    scale = Contrastive.examples()[0].build(trunk).scale
    one = torch.ones(1)
    assert math.isclose(scale(one).item(), 1 / 0.07, rel_tol=1e-6)
    with torch.no_grad():
        scale.log_scale.fill_(9.0)
    assert math.isclose(scale(one).item(), 100.0, rel_tol=1e-6)


def test_accumulation_is_refused_because_it_would_be_another_loss() -> None:
    data = Data(train=BundledFashionMNIST(split="train"), validation=BundledFashionMNIST(split="test"), batch_size=4)
    with pytest.raises(InvalidValue, match="'contrastive' uses the samples of a batch together"):
        Experiment(
            name="clip", data=data, trunk=ViT(width=16, depth=1, num_heads=2), objective=Contrastive.examples()[0],
            num_steps=1, engine=Engine(accumulation_steps=2),
        )  # fmt: skip


def test_thesoftmax_loss_is_the_mean_cross_entropy_of_both_directions() -> None:
    module = _module()
    image_BE, text_BE = (functional.normalize(torch.randn(4, 24), dim=-1) for _ in range(2))
    logits = module.scale(image_BE @ text_BE.T)
    expected = -(logits.log_softmax(1).diagonal() + logits.log_softmax(0).diagonal()).sum() / 2
    torch.testing.assert_close(softmax_loss(module.scale, image_BE, text_BE, gather=True), expected)


def test_thesigmoid_loss_judges_every_pair() -> None:
    scale = Contrastive.examples()[1].build(ViT(width=16, depth=1, num_heads=2, patch_size=4).build()).scale
    image_BE, text_BE = (functional.normalize(torch.randn(3, 8), dim=-1) for _ in range(2))
    logits = 10 * image_BE @ text_BE.T - 10
    pairs = sum(math.log1p(math.exp(-logits[i, j].item() * (1 if i == j else -1))) for i in range(3) for j in range(3))
    assert math.isclose(sigmoid_loss(scale, image_BE, text_BE, gather=True).item(), pairs, rel_tol=1e-5)
