"""What probes say of themselves: blocks they read, and how they depart from what was published."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from aimcore import Augmentation, InvalidValue, RandAugment
from aimcore_probes import AttentiveProbe, KNNProbe, LinearProbe
from aimcore_probes.grid_probe import HELD_OUT_CHOICE, NOT_AUGMENTED, GridProbe
from aimcore_probes.linear import UNPUBLISHED


def _own(probe: GridProbe) -> list[str]:
    return list(probe.departures())[2:]


@pytest.mark.parametrize("probe", [AttentiveProbe(), KNNProbe(), LinearProbe()])
def test_the_last_six_blocks_are_read_or_all_of_a_shallow_trunk(probe: AttentiveProbe | KNNProbe | LinearProbe) -> None:
    assert probe.layers_of(24) == (18, 19, 20, 21, 22, 23)
    assert probe.layers_of(4) == (0, 1, 2, 3)


def test_blocks_can_be_named_as_table_7_does() -> None:
    assert AttentiveProbe(layers=(12, 13, 14)).layers_of(24) == (12, 13, 14)
    with pytest.raises(InvalidValue, match=r"layers: the trunk has blocks 0 to 3, got \(3, 4\)"):
        KNNProbe(layers=(3, 4)).layers_of(4)


def test_what_differs_from_the_published_protocol_is_said_field_by_field() -> None:
    small = AttentiveProbe(epochs=10, max_train_images=4000, num_heads=4)
    assert _own(small) == ["epochs is 10; Table 11 has 100", "max_train_images is 4000; Table 11 has none"]


@pytest.mark.parametrize(
    "probe",
    [
        AttentiveProbe(num_heads=12),
        AttentiveProbe.aimv2(),
        AttentiveProbe.aimv2(warmup_epochs=5, batch_size=1024),
    ],
)
def test_a_published_protocol_departs_in_what_all_do_only(probe: GridProbe) -> None:
    assert _own(probe) == []
    assert list(probe.departures()) == [HELD_OUT_CHOICE, NOT_AUGMENTED]


@pytest.mark.parametrize("imagenet", [False, True])
@pytest.mark.parametrize("preset", [AttentiveProbe.table_11, AttentiveProbe.table_a2])
def test_a_preset_departs_from_its_table_in_the_held_out_choice_only(
    preset: Callable[..., AttentiveProbe], imagenet: bool
) -> None:
    probe = preset(imagenet=imagenet)
    assert list(probe.departures()) == [HELD_OUT_CHOICE]
    table = "Table 11" if preset == AttentiveProbe.table_11 else "Table A2"
    assert probe.protocol == (f"{table} (ImageNet)" if imagenet else table)


def test_presets_have_the_numbers_of_their_tables() -> None:
    # arXiv:2401.08541, Table 11: columns IN-1k and Others; arXiv:2411.14402, Table A2: the same columns.
    eleven, others = AttentiveProbe.table_11(imagenet=True), AttentiveProbe.table_11()
    assert (eleven.epochs, eleven.warmup_epochs, eleven.batch_size) == (50, 5, 1024)
    assert (others.epochs, others.warmup_epochs, others.batch_size) == (100, 0, 512)
    a2, a2_others = AttentiveProbe.table_a2(imagenet=True), AttentiveProbe.table_a2()
    assert (a2.epochs, a2.warmup_epochs, a2.batch_size) == (100, 5, 1024)
    assert (a2_others.epochs, a2_others.warmup_epochs, a2_others.batch_size) == (100, 0, 512)
    for probe in (eleven, others, a2, a2_others):
        augmentation = probe.augmentation
        assert augmentation is not None
        assert (augmentation.crop_scale, augmentation.flip_probability) == ((0.08, 1.0), 0.5)
        assert augmentation.color_jitter is not None
        assert augmentation.color_jitter[:3] == (0.3, 0.3, 0.3)
        assert augmentation.rand_augment == RandAugment(magnitude=9.0, magnitude_std=0.5, num_ops=2)


def test_stored_features_and_other_augmentations_are_named() -> None:
    assert AttentiveProbe().protocol == "Table 11, on stored features of images that are not augmented (quick)"
    assert AttentiveProbe.aimv2(epochs=5).protocol.startswith("close to Table A2, on stored features")
    flipped = AttentiveProbe.table_11(augmentation=Augmentation())
    assert flipped.protocol == "Table 11, with another augmentation"
    assert list(flipped.departures())[1].startswith("images are augmented by Augmentation(crop_scale=(0.4, 1.0)")


def test_the_nearest_protocol_is_compared_with() -> None:
    assert _own(AttentiveProbe.aimv2(epochs=50)) == ["epochs is 50; Table A2 has 100"]
    assert _own(LinearProbe(epochs=50, warmup_epochs=5)) == [
        "batch_size is 512; Table 11 (ImageNet) has 1024", UNPUBLISHED,
    ]  # fmt: skip


@pytest.mark.parametrize("probe", [LinearProbe(), LinearProbe(epochs=50, warmup_epochs=5, batch_size=1024)])
def test_a_linear_probe_says_that_the_papers_protocol_is_not_its_own(probe: LinearProbe) -> None:
    assert _own(probe) == [UNPUBLISHED]
    assert LinearProbe.paper == "arXiv:2401.08541, Tables 3 to 5"


def test_neighbours_say_what_their_papers_do_otherwise() -> None:
    texts = list(KNNProbe(k=5, temperature=None).departures())
    assert "5 neighbours vote; arXiv:2104.14294 has 20" in texts
    assert len(list(KNNProbe().departures())) == len(texts) - 2
