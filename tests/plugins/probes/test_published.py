"""What probes say of themselves: blocks they read, and how they depart from what was published."""

from __future__ import annotations

import pytest

from aimcore import InvalidValue
from aimcore_probes import AttentiveProbe, KNNProbe, LinearProbe
from aimcore_probes.grid_probe import COMMON_DEPARTURES, GridProbe
from aimcore_probes.linear import UNPUBLISHED


def _own(probe: GridProbe) -> list[str]:
    return list(probe.departures())[len(COMMON_DEPARTURES) :]


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
    assert list(probe.departures()) == list(COMMON_DEPARTURES)


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
