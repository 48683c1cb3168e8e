"""For every kind of source, a run that resumes within an epoch on other numbers of ranks reads the same samples."""

import pickle
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from core.testing.with_data import MAKERS

from aimcore import OpenSource, Source
from aimcore.contracts.tokenizers import TextTokenizer
from aimcore.data.captions import Captions
from aimcore.data.sampling import micro_batch_numbers
from aimcore_sources import Mixture

KINDS = ("image_folder", "captioned_folder", "zarr", "webdataset", "parquet")
BATCH, SEED = 4, 7


def _source(kind: str, folder: Path) -> Source:
    if kind != "mixture":
        return cast("Source", MAKERS[f"sources/{kind}"](folder))
    folders = [folder / "a", folder / "b"]
    for one in folders:
        one.mkdir()
    return Mixture(sources=(_source("webdataset", folders[0]), _source("parquet", folders[1])), weights=(3, 1))


def _read(opened: OpenSource, first_step: int, last_step: int, ranks: int, accumulation: int) -> list[tuple[str, str]]:
    """Identifiers and drawn captions of all ranks, by sample number."""
    found: dict[int, tuple[str, str]] = {}
    captions = Captions(cast("TextTokenizer", None), 8)
    for rank in range(ranks):
        own = pickle.loads(pickle.dumps(opened))  # as data workers and other processes have it
        for step in range(first_step, last_step):
            for micro in range(accumulation):
                numbers = micro_batch_numbers(
                    step, micro, batch_size=BATCH, rank=rank, world_size=ranks, accumulation_steps=accumulation
                )
                for number, index in zip(numbers.tolist(), own.indices_of(numbers, SEED).tolist(), strict=True):
                    sample = own.read(index)
                    found[number] = (sample.identifier, captions.drawn(sample, SEED, number) if sample.captions else "")
    return [found[number] for number in sorted(found)]


@pytest.mark.parametrize("kind", [*KINDS, "mixture"])
def test_one_then_two_then_four_ranks_read_what_one_reads(kind: str, tmp_path: Path) -> None:
    opened = _source(kind, tmp_path).open()
    whole = _read(opened, 0, 6, 1, 1)
    # Six samples per epoch (twelve in the mixture) and four per step: both breaks are within an epoch.
    parts = [_read(opened, 0, 1, 1, 1), _read(opened, 1, 4, 2, 2), _read(opened, 4, 6, 4, 1)]
    assert [sample for part in parts for sample in part] == whole
    assert len(whole) == 6 * BATCH
    if kind != "mixture":
        assert {name for name, _ in whole[:6]} == {opened.read(index).identifier for index in range(6)}


def test_the_order_is_that_of_sample_numbers_and_not_of_calls(tmp_path: Path) -> None:
    opened = _source("parquet", tmp_path).open()
    numbers = np.arange(40)
    backwards = [int(opened.indices_of(numbers[place : place + 1], SEED)[0]) for place in reversed(range(40))]
    assert backwards[::-1] == opened.indices_of(numbers, SEED).tolist()
