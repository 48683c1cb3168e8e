"""The contracts of an ordering and a trunk; orders and instructions by hand; what the causality check says."""

import runpy
from pathlib import Path

import pytest
import torch
from aimcore_random_orders import RandomOrders, ToldViT
from aimcore_random_orders.trunk import next_positions

from aimcore import CAUSAL, AimcoreError, Images, PatchGrid, Reading, component
from aimcore.contracts.images import images_of
from aimcore.modeling.positions import sincos_positions
from aimcore.testing import Case, findings_of, parametrize_with_checks
from aimcore_heads import LinearHead
from aimcore_objectives import NextPatch
from aimcore_targets import Pixels

TRUNK = ToldViT(width=16, depth=2, num_heads=2, patch_size=4)
OBJECTIVE = NextPatch(ordering=RandomOrders(), target=Pixels(), head=LinearHead(), prefix=None)


@parametrize_with_checks([RandomOrders(), TRUNK])
def test_it_conforms(component, check):
    check(component)


def images(number, rows=3, columns=4):
    return images_of(torch.randn(number, 3, 4 * rows, 4 * columns), patch_size=4)


def test_every_sample_has_an_order_of_its_own():
    orders_BN = RandomOrders().orders(images(300), torch.arange(300), seed=0)
    assert (orders_BN.sort(dim=1).values == torch.arange(12)).all()
    assert len({tuple(order) for order in orders_BN.tolist()}) == 300
    # Every patch is first about equally often: 300 / 12 = 25 times, with a standard deviation of 4.8.
    assert all(5 < count < 45 for count in orders_BN[:, 0].bincount(minlength=12).tolist())


def test_an_order_belongs_to_the_sample_and_the_seed():
    ordering, three = RandomOrders(), images(3)
    orders_BN = ordering.orders(three, torch.tensor([5, 6, 7]), seed=1)
    assert torch.equal(ordering.orders(three, torch.tensor([7, 6, 5]), seed=1), orders_BN.flip(0))
    assert not torch.equal(ordering.orders(three, torch.tensor([5, 6, 7]), seed=2), orders_BN)


def test_padding_stays_last():
    mixed = Images(torch.zeros(2, 12, 48), (PatchGrid(2, 3), PatchGrid(3, 4)), patch_size=4)
    orders_BN = RandomOrders().orders(mixed, torch.arange(2), seed=0)
    assert sorted(orders_BN[0, :6].tolist()) == [0, 1, 2, 3, 4, 5]
    assert orders_BN[0, 6:].tolist() == [6, 7, 8, 9, 10, 11]


def test_each_token_is_told_the_position_of_the_patch_after_it():
    positions_BN2 = torch.tensor([[[2, 1], [0, 3], [1, 1]]])
    told_BND = next_positions(positions_BN2, 16)
    torch.testing.assert_close(told_BND[0, :2], sincos_positions(torch.tensor([[0, 3], [1, 1]]), 16))
    assert not told_BND[0, 2].any()


def test_the_token_of_a_step_changes_with_the_next_position_if_it_is_told():
    """Two orders that begin with the same patch and go on with different ones."""
    orders_BN = torch.tensor([[0, 1, 2, *range(3, 12)], [0, 2, 1, *range(3, 12)]])
    one = images(1)
    twice = Images(one.patches_BNF.expand(2, -1, -1), one.grids * 2, one.patch_size)
    for told in (True, False):
        trunk = ToldViT(width=16, depth=2, num_heads=2, patch_size=4, told=told).build()
        first_BD = trunk(twice, Reading(attention=CAUSAL, order_BN=orders_BN)).tokens_BND[:, 0]
        assert torch.allclose(*first_BD) is not told


@component("peeking_order")
class PeekingOrders(RandomOrders):
    """The mistake to make: orders by brightness, which tell of patches that are not read yet."""

    def orders(self, images, sample_numbers_B, seed):
        return images.patches_BNF.mean(-1).argsort(dim=1)


def test_the_causality_check_passes_it_and_finds_orders_that_look_at_pixels():
    assert findings_of(Case("random orders", TRUNK, OBJECTIVE, PatchGrid(2, 3))) == []
    peeking = NextPatch(ordering=PeekingOrders(), target=Pixels(), head=LinearHead(), prefix=None)
    assert findings_of(Case("peeking", TRUNK, peeking, PatchGrid(2, 3))) != []


def test_the_study_offers_two_scales():
    study = runpy.run_path(Path(__file__).parents[1] / "study.py")["study"]
    for scale in ("smoke", "small"):
        assert [experiment.name for experiment in study(scale).experiments] == ["told", "not-told"]
    with pytest.raises(AimcoreError, match="there is no scale 'paper': choose from smoke, small"):
        study("paper")
