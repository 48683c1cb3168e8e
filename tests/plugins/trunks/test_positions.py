"""Learned positions are interpolated, once or while reading; they are never sliced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from core.engine.test_real_modules import next_patch
from core.engine.toys import ToySource
from safetensors.torch import load_file, save_file
from torch import Tensor

from aimcore import Data, Experiment, Images, InvalidValue, PatchGrid, Reading, Weights
from aimcore.contracts.images import images_of
from aimcore.engine import WeightsMismatch, build_module, initial_module
from aimcore.engine.initial_weights import check_weights
from aimcore_trunks import ViT, aimv2
from aimcore_trunks.interpolation import NotResizable, interpolate_positions, resize_positions
from aimcore_trunks.vit import SincosPositions


def linear_table(grid: PatchGrid) -> Tensor:
    """Positions that are linear in the place: 3 row + 2, and 5 - column, by patch centres in [0, 1]."""
    rows, columns = torch.meshgrid(torch.arange(grid.rows), torch.arange(grid.columns), indexing="ij")
    row, column = ((index.flatten() + 0.5) / number for index, number in ((rows, grid.rows), (columns, grid.columns)))
    return torch.stack([3 * row + 2, 5 - column], dim=1)


@pytest.mark.parametrize("wanted", [PatchGrid(24, 24), PatchGrid(32, 32), PatchGrid(18, 26)])
def test_a_linear_table_stays_linear_away_from_the_edges(wanted: PatchGrid) -> None:
    found = interpolate_positions(linear_table(PatchGrid(16, 16)), PatchGrid(16, 16), wanted).reshape(
        wanted.rows, wanted.columns, 2
    )
    expected = linear_table(wanted).reshape(wanted.rows, wanted.columns, 2)
    torch.testing.assert_close(found[4:-4, 4:-4], expected[4:-4, 4:-4], atol=2e-6, rtol=0)


def test_a_table_that_shrinks_is_averaged_and_not_sampled() -> None:
    alternating = (torch.arange(16 * 16) % 2).float()[:, None]  # every other column is 1
    found = interpolate_positions(alternating, PatchGrid(16, 16), PatchGrid(8, 8)).reshape(8, 8)
    torch.testing.assert_close(found[:, 2:-2], torch.full((8, 4), 0.5), atol=0.01, rtol=0)


def test_the_same_grid_leaves_the_table_alone() -> None:
    table = torch.randn(16, 8)
    assert interpolate_positions(table, PatchGrid(4, 4), PatchGrid(4, 4)) is table
    # As many positions are taken for this grid's own, though it is no square.
    assert torch.equal(resize_positions({"positions.table": table}, PatchGrid(2, 8))["positions.table"], table)


def test_a_table_of_no_square_is_refused() -> None:
    with pytest.raises(NotResizable, match="12 learned positions: only those of a square"):
        resize_positions({"positions.table": torch.zeros(12, 8)}, PatchGrid(4, 4))


def vit(side: int | None, **changes: Any) -> ViT:
    grid = {} if side is None else {"positions": "learned", "grid": (side, side)}
    return ViT(**{"width": 16, "depth": 1, "num_heads": 2, "patch_size": 4, **grid, **changes})


def beginning(trunk: ViT, path: Path, **weights: Any) -> Experiment:
    """A run on images of 16 px that begins with a file."""
    data = Data(train=ToySource(), validation=ToySource(), batch_size=8, image_size=16)
    return next_patch(0, "fp32", data=data, trunk=trunk, initial_weights=Weights(url=str(path), **weights))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The weights of a run on images of 8 px with learned positions."""
    data = Data(train=ToySource(), validation=ToySource(), batch_size=8, image_size=8)
    module = build_module(next_patch(0, "fp32", data=data, trunk=vit(2), seed=4))
    save_file(module.state_dict(), tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


@pytest.mark.parametrize("part", ["trunk", "all"])
def test_a_run_begins_with_weights_of_smaller_images(small: Path, part: str) -> None:
    run = beginning(vit(4), small, resize=True, part=part)
    with torch.device("meta"):
        check_weights(run, run.objective.build(run.trunk.build()), run.initial_weights)
    state = initial_module(run).state_dict()
    known = load_file(small)
    expected = interpolate_positions(known["trunk.positions.table"], PatchGrid(2, 2), PatchGrid(4, 4))
    assert torch.equal(state["trunk.positions.table"], expected)
    assert torch.equal(state["trunk.blocks.0.ffn.fc1.weight"], known["trunk.blocks.0.ffn.fc1.weight"])


def test_fixed_positions_take_the_place_of_learned_ones(small: Path) -> None:
    state = initial_module(beginning(vit(None), small, resize=True)).state_dict()
    assert not any("positions" in name for name in state if name.startswith("trunk"))


def test_weights_of_another_size_are_refused_with_the_cure(small: Path) -> None:
    with pytest.raises(
        WeightsMismatch, match=r"positions.table \[4, 16\] instead of \[16, 16\]; once resized they would"
    ):
        initial_module(beginning(vit(4), small))
    with pytest.raises(WeightsMismatch, match=r"unexpected: positions.table; once resized .* initial_weights.resize"):
        initial_module(beginning(vit(None), small))


def test_weights_that_cannot_be_resized_say_why(tmp_path: Path) -> None:
    save_file(vit(None).build().state_dict(), tmp_path / "sincos.safetensors")
    with pytest.raises(WeightsMismatch, match=r"missing: positions.table; and they cannot be resized: .* no learned"):
        initial_module(beginning(vit(4), tmp_path / "sincos.safetensors", resize=True))
    fresh = beginning(vit(4), tmp_path / "sincos.safetensors", resize=True, fresh=("positions",))
    assert "trunk.positions.table" in initial_module(fresh).state_dict()


def test_a_trunk_that_interpolates_reads_other_grids_with_interpolated_positions() -> None:
    torch.manual_seed(0)
    small, large = vit(2, interpolate=True).build(), vit(4).build()
    large.load_state_dict(vit(4).resized(small.state_dict()))
    images = images_of(torch.randn(2, 3, 16, 16), 4)
    assert torch.equal(small(images, Reading()).tokens_BND, large(images, Reading()).tokens_BND)
    with pytest.raises(ValueError, match=r"positions are for 2 x 2 patches, the images have 4 x 4: set trunk\.grid"):
        vit(2).build()(images, Reading())


def test_interpolation_is_for_learned_positions() -> None:
    assert aimv2("L", image_size=448, interpolate=True).interpolate
    with pytest.raises(InvalidValue, match="interpolate: requires positions='learned', got 'sincos'"):
        vit(None, interpolate=True)


def test_tables_of_fixed_positions_follow_grid_length_and_padding() -> None:
    """One module reads batches of one grid with different padding: each gets its own positions."""
    positions, tokens_BND = SincosPositions(8), torch.zeros(1, 6, 8)
    patches_BNF = torch.zeros(1, 6, 12)
    found = [
        positions(tokens_BND, Images(patches_BNF, (PatchGrid(2, 2),), 2, padding_is_image=is_image))[0]
        for is_image in (True, False)
    ]
    assert torch.equal(found[0][:4], found[1][:4])
    assert not torch.equal(found[0][4:], found[1][4:])
    assert positions(tokens_BND[:, :4], Images(patches_BNF[:, :4], (PatchGrid(2, 2),), 2)).shape == (1, 4, 8)
