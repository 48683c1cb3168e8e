"""The real trunk and objective under the probes' eyes."""

from __future__ import annotations

import pytest
import torch
from core.engine.toys import experiment, whole_batch
from torch import Tensor

from aimcore import Batch, Ordering
from aimcore.contracts.images import images_of
from aimcore.evaluation import extract_features
from aimcore.evaluation.feature_extraction import ProbeAttention
from aimcore.evaluation.feature_sources import FrozenTrunk
from aimcore.evaluation.feature_tables import FeatureKind
from aimcore_heads import LinearHead
from aimcore_objectives import NextPatch
from aimcore_orderings import Checkerboard, FixedRandom, Raster, Spiral
from aimcore_trunks import ViT
from aimcore_trunks.vit import ViTModule

OTHERS = (Spiral(), Checkerboard(), FixedRandom(seed=3))


def _tokens(ordering: Ordering, attention: ProbeAttention) -> Tensor:
    torch.manual_seed(0)
    trunk = ViT(width=16, depth=2, num_heads=2, patch_size=2).build()
    pixels_BCHW = torch.randn(2, 3, 8, 8)
    batch = Batch(
        images=images_of(pixels_BCHW, 2), sample_numbers_B=torch.arange(2), labels_B=torch.zeros(2, dtype=torch.long)
    )
    objective = NextPatch(ordering=ordering, head=LinearHead())
    found = extract_features(
        trunk, [batch], objective=objective, attention=attention, layers=(0, 1), reads="tokens", num_classes=1
    )
    return found.features


@pytest.mark.parametrize("ordering", OTHERS, ids=lambda ordering: ordering.name)
def test_with_bidirectional_attention_raster_tokens_do_not_depend_on_the_order(ordering: Ordering) -> None:
    torch.testing.assert_close(
        _tokens(ordering, "bidirectional"), _tokens(Raster(), "bidirectional"), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("ordering", OTHERS, ids=lambda ordering: ordering.name)
def test_with_causal_attention_they_do(ordering: Ordering) -> None:
    assert not torch.allclose(_tokens(ordering, "causal"), _tokens(Raster(), "causal"), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("precision", "products"), [("fp32", None), ("autocast", torch.bfloat16)])
def test_probes_read_with_one_copy_of_the_weights_until_they_change(
    monkeypatch: pytest.MonkeyPatch, precision: str, products: torch.dtype | None
) -> None:
    made = []
    original = ViTModule.for_inference
    monkeypatch.setattr(
        ViTModule, "for_inference", lambda module, asked=None: made.append(asked) or original(module, asked)
    )
    config = ViT(width=16, depth=2, num_heads=2, patch_size=4)
    objective, trunk = NextPatch(ordering=Raster(), head=LinearHead()), config.build()
    source = FrozenTrunk(trunk, experiment(precision=precision, trunk=config, objective=objective))
    batch, kind = whole_batch(0), FeatureKind("pooled", ())
    first = source.of(batch, kind)
    assert torch.equal(source.of(batch, kind), first)
    assert made == [products]
    with torch.no_grad():
        trunk.norm.weight.mul_(2)
    assert not torch.allclose(source.of(batch, kind), first)
    assert made == [products] * 2
