"""A class token and registers of the ViT: what they read, and who reads them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from core.engine.toys import experiment
from torch import Tensor

from aimcore import Attention, InvalidValue, PatchGrid, Reading, component
from aimcore.evaluation import extract_all
from aimcore.evaluation.feature_tables import FeatureKind
from aimcore.modeling.attention import Mask
from aimcore.testing import Case, findings_of
from aimcore.testing.fixtures import batch_of, random_images
from aimcore_heads import LinearHead
from aimcore_objectives import Classification, NextPatch
from aimcore_probes import LinearProbe
from aimcore_targets import Pixels
from aimcore_trunks import ViT
from aimcore_trunks.vit import ViTModule

GRID = PatchGrid(1, 5)


def vit(**changes: Any) -> ViT:
    return ViT(**{"width": 16, "depth": 2, "num_heads": 2, "patch_size": 4, **changes})


def module(**changes: Any) -> ViTModule:
    torch.manual_seed(0)
    return vit(**changes).build().double()


def prefixed(length: int) -> Attention:
    return Attention(causal=True, prefix_length_B=torch.tensor([length] * 3))


@pytest.mark.parametrize(
    ("attention", "of_sequence"),
    [
        (Attention(), Attention()),
        (Attention(causal=True), Attention(causal=True)),
        (prefixed(2), prefixed(4)),
        (
            Attention(valid_BN=torch.tensor([[True, False, True]] * 3)),
            Attention(valid_BN=torch.tensor([[True, True, True, False, True]] * 3)),
        ),
    ],
    ids=["bidirectional", "causal", "prefix", "valid"],
)
def test_extra_tokens_are_read_like_patches_before_the_first_one(attention: Attention, of_sequence: Attention) -> None:
    """The learned tokens are set to the first two patches of the images, and only the other patches are read."""
    plain, images = module(), random_images(GRID)
    image = random_images(GRID, number=1).patches_BNF
    images = type(images)(image.expand(3, -1, -1), images.grids, images.patch_size)
    extra = module(num_extra=2)
    extra.load_state_dict(plain.state_dict() | {"extra_tokens.tokens": plain._embed(images, None)[0, :2].detach()})
    order_BN = torch.tensor([[2, 3, 4]] * 3)
    expected = plain(images, Reading(attention=of_sequence, layers=(0,)))
    found = extra(images, Reading(attention=attention, order_BN=order_BN, layers=(0,)))
    assert found.extra_BRD is not None
    torch.testing.assert_close(found.extra_BRD, expected.tokens_BND[:, :2])
    torch.testing.assert_close(found.tokens_BND, expected.tokens_BND[:, 2:])
    torch.testing.assert_close(found.layers[0], expected.layers[0][:, 2:])
    maps_BHNN = plain.attention_maps(images, Reading(attention=of_sequence))[..., 2:, 2:]
    torch.testing.assert_close(
        extra.attention_maps(images, Reading(attention=attention, order_BN=order_BN)),
        maps_BHNN / maps_BHNN.sum(-1, keepdim=True),
    )


def test_a_trunk_without_extra_tokens_draws_the_same_weights_as_with_them() -> None:
    plain, extra = module().state_dict(), module(num_extra=2).state_dict()
    assert extra.keys() - plain.keys() == {"extra_tokens.tokens"}
    assert extra["patch_embedding.linear.weight"].equal(plain["patch_embedding.linear.weight"])
    assert extra["extra_tokens.tokens"].shape == (2, 16)


def test_a_probe_reads_the_class_token() -> None:
    objective = Classification(num_classes=2)
    assert experiment(trunk=vit(num_extra=1), objective=objective, probes=(LinearProbe(pool="class"),))
    with pytest.raises(InvalidValue, match=r"probes\.0: probe 'linear' reads a class token, and trunk 'vit' has none"):
        experiment(trunk=vit(), objective=objective, probes=(LinearProbe(pool="class"),))
    trunk, batch = module(num_extra=3), batch_of(random_images(GRID))
    (kind,) = kinds = [FeatureKind.of(LinearProbe(pool="class"), 2)]
    table = extract_all(trunk, [batch], kinds, objective=objective, attention="bidirectional", num_classes=2)[kind]
    with torch.no_grad():
        extra_BRD = trunk(batch.images, Reading()).extra_BRD
    assert extra_BRD is not None
    torch.testing.assert_close(table.features, extra_BRD[:, 0].float())


class LeakyModule(ViTModule):
    def _mask(self, *given: Any) -> Mask:
        mask = super()._mask(*given)
        if mask.allowed is None:
            return mask
        allowed: Tensor = mask.allowed.clone()
        allowed[..., : self.num_extra, :] = True
        return Mask(allowed)


@component("leaky")
class Leaky(ViT):
    """The mistake to make: a class token that reads all patches, and is read by all of them."""

    def build(self) -> ViTModule:
        return LeakyModule(self)


@pytest.mark.parametrize("prefix", [None, 2])
def test_the_causality_check_passes_extra_tokens_and_finds_those_that_read_later_patches(prefix: int | None) -> None:
    objective = NextPatch(target=Pixels(), head=LinearHead(), prefix=prefix)
    sizes: dict[str, Any] = {"width": 16, "depth": 2, "num_heads": 2, "patch_size": 4, "num_extra": 2}
    assert findings_of(Case("extra tokens", ViT(**sizes), objective, PatchGrid(2, 3))) == []
    assert findings_of(Case("leaky", Leaky(**sizes), objective, PatchGrid(2, 3))) != []
