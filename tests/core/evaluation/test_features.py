"""Features of a trunk whose outputs are known: block i puts out (i + 1) times the patches."""

from __future__ import annotations

import pytest
import torch
from core.evaluation.toys import ToyObjective, ToyTrunkModule
from torch import Tensor

from aimcore import Batch, Images, InvalidValue, LabelledFeatures, PatchGrid
from aimcore.contracts.images import images_of
from aimcore.evaluation import FeatureKind, extract_all, extract_features


def _batch(numbers: list[int]) -> Batch:
    """Image k is drawn from k, so that it is the same in every batch."""
    images = [torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(number)) for number in numbers]
    return Batch(
        images=images_of(torch.stack(images), patch_size=2),
        sample_numbers_B=torch.tensor(numbers),
        labels_B=torch.tensor([number % 2 for number in numbers]),
    )


def _extract(batches: list[Batch], trunk: ToyTrunkModule | None = None, **changed: object) -> LabelledFeatures:
    settings: dict[str, object] = {"attention": "causal", "layers": (1, 2), "reads": "tokens", "num_classes": 2}
    return extract_features(trunk or ToyTrunkModule(), batches, objective=ToyObjective(), **(settings | changed))  # type: ignore[arg-type]


def _patches(numbers: list[int]) -> Tensor:
    return _batch(numbers).images.patches_BNF


def test_tokens_are_the_mean_of_the_layers_in_raster_order() -> None:
    found = _extract([_batch([0, 1])])
    # The mean of 2 x and 3 x; the objective reads backwards.
    torch.testing.assert_close(found.features, 2.5 * _patches([0, 1]))
    assert found.labels.tolist() == [0, 1]


def test_pooled_features_are_the_mean_token() -> None:
    found = _extract([_batch([0, 1])], reads="pooled")
    torch.testing.assert_close(found.features, 2.5 * _patches([0, 1]).mean(1))


def test_without_layers_the_trunks_own_output_is_read() -> None:
    found = _extract([_batch([0, 1])], layers=())
    torch.testing.assert_close(found.features, -_patches([0, 1]))


def test_the_trunk_reads_in_the_objectives_order_with_the_probes_attention() -> None:
    trunk = ToyTrunkModule()
    _extract([_batch([0])], trunk, attention="causal")
    _extract([_batch([0])], trunk, attention="bidirectional")
    (causal, _, _), (bidirectional, _, _) = trunk.readings
    assert (causal.attention.causal, bidirectional.attention.causal) == (True, False)
    assert causal.order_BN is not None
    assert causal.order_BN.tolist() == [[3, 2, 1, 0]]


def test_the_trunk_is_frozen_and_left_as_it_was() -> None:
    trunk = ToyTrunkModule()
    found = _extract([_batch([0])], trunk)
    assert trunk.readings[0][1:] == (False, False)
    assert (trunk.training, found.features.requires_grad) == (True, False)


def test_features_depend_on_neither_batches_nor_their_order() -> None:
    whole = _extract([_batch([0, 1, 2, 3, 4])])
    split = _extract([_batch([3, 0]), _batch([4]), _batch([2, 1])])
    assert torch.equal(whole.features, split.features)
    assert torch.equal(whole.labels, split.labels)


def test_padding_is_left_out_of_the_mean_and_hidden_from_attention() -> None:
    patches_BNF = torch.ones(2, 4, 12)
    patches_BNF[1, 2:] = 1000.0
    images = Images(patches_BNF=patches_BNF, grids=(PatchGrid(2, 2), PatchGrid(1, 2)), patch_size=2)
    batch = Batch(images=images, sample_numbers_B=torch.tensor([0, 1]), labels_B=torch.tensor([0, 1]))
    trunk = ToyTrunkModule()
    found = _extract([batch], trunk, reads="pooled", layers=(0,))
    assert torch.equal(found.features, torch.ones(2, 12))
    valid_BN = trunk.readings[0][0].attention.valid_BN
    assert valid_BN is not None
    assert valid_BN.tolist() == [[True] * 4, [True, True, False, False]]


def test_tokens_of_padding_are_no_numbers() -> None:
    grids = (PatchGrid(2, 2), PatchGrid(1, 2))
    images = Images(patches_BNF=torch.ones(2, 4, 12), grids=grids, patch_size=2)
    batch = Batch(images=images, sample_numbers_B=torch.tensor([0, 1]), labels_B=torch.tensor([0, 1]))
    found = _extract([batch], layers=(0,)).features
    assert found.isnan().all(2).tolist() == [[False] * 4, [False, False, True, True]]
    assert found.isnan().any(2).tolist() == [[False] * 4, [False, False, True, True]]


def test_all_kinds_come_from_one_reading() -> None:
    trunk = ToyTrunkModule()
    kinds = (FeatureKind("pooled", (0,)), FeatureKind("tokens", (2, 1)), FeatureKind("pooled", (2,)))
    found = extract_all(trunk, [_batch([0])], kinds, objective=ToyObjective(), attention="causal", num_classes=2)
    assert [reading.layers for reading, _, _ in trunk.readings] == [(0, 1, 2)]
    torch.testing.assert_close(found[kinds[0]].features, _patches([0]).mean(1))
    torch.testing.assert_close(found[kinds[1]].features, 2.5 * _patches([0]))
    torch.testing.assert_close(found[kinds[2]].features, 3 * _patches([0]).mean(1))


def test_features_are_float32_under_autocast() -> None:
    class Rounded(ToyTrunkModule):
        def forward(self, images: Images, reading):  # type: ignore[no-untyped-def]
            weight = torch.eye(12)
            features = super().forward(images, reading)
            return features._replace(layers=tuple(layer @ weight for layer in features.layers))

    rounded, exact = (
        _extract([_batch([0])], Rounded(), layers=(0,), precision=precision) for precision in ("autocast", "fp32")
    )
    assert rounded.features.dtype == torch.float32
    assert torch.equal(rounded.features, exact.features.bfloat16().float())


def test_images_without_labels_are_refused() -> None:
    batch = Batch(images=_batch([0]).images, sample_numbers_B=torch.tensor([0]))
    with pytest.raises(InvalidValue, match="needs labels"):
        _extract([batch])


def test_no_image_at_all_is_refused() -> None:
    with pytest.raises(InvalidValue, match="no image to take features of"):
        _extract([])
