"""samples.npz: written, read, and refused when it is not what it should be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_material import samples

from aimcore.contracts.errors import InvalidSamples
from aimcore.report.sample_files import read_samples, save_samples


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    written = samples(absent={"attention": "hidden"}, attention_BQN=None, queries_Q=None)
    save_samples(written, tmp_path / "samples.npz")
    found = read_samples(tmp_path / "samples.npz")
    assert (found.rows, found.columns, found.uses_truth, found.absent) == (3, 4, True, {"attention": "hidden"})
    np.testing.assert_array_equal(found.images_BHWC, written.images_BHWC)
    assert found.attention_BQN is None


def test_nothing_is_left_beside_the_file(tmp_path: Path) -> None:
    save_samples(samples(), tmp_path / "samples.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["samples.npz"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"order_N": np.zeros(12, dtype=int)}, "not a permutation of 12 patches"),
        ({"order_N": np.arange(11)}, "not a permutation of 12 patches"),
        ({"images_BHWC": np.zeros((2, 6, 8), dtype=np.uint8)}, "images_BHWC has shape"),
        ({"predicted_BHWC": np.zeros((1, 6, 8, 3), dtype=np.uint8)}, "predicted_BHWC has shape"),
        ({"predicted_BN": None}, "require each other"),
        ({"decoded_BHWC": np.zeros((1, 6, 8, 3), dtype=np.uint8)}, "decoded_BHWC has shape"),
        ({"code_counts_K": np.array([3, -1])}, "code_counts_K has shape"),
        ({"code_counts_K": np.array([0.5])}, "code_counts_K has shape"),
        ({"predicted_BN": np.ones((2, 9), dtype=bool)}, "predicted_BN has shape"),
        ({"attention_BQN": np.zeros((2, 2, 12))}, "attention_BQN has shape"),
        ({"attention_BQN": np.zeros((3, 3, 12))}, "attention_BQN has shape"),
        ({"queries_Q": None}, "require each other"),
        ({"queries_Q": np.array([0, 1, 12])}, "queries_Q"),
        (
            {"images_BHWC": np.zeros((2, 7, 8, 3), dtype=np.uint8), "predicted_BHWC": None, "predicted_BN": None},
            "3 x 4",
        ),
        ({"rows": 0}, "0 x 4"),
    ],
)
def test_arrays_that_do_not_fit_each_other_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    save_samples(samples(**changes), tmp_path / "samples.npz")
    with pytest.raises(InvalidSamples, match=message):
        read_samples(tmp_path / "samples.npz")


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    save_samples(samples(), path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InvalidSamples, match=r"samples\.npz: cannot be read"):
        read_samples(path)


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    np.savez(path, rows=np.array([print], dtype=object))
    with pytest.raises(InvalidSamples, match="contains pickled objects, which are never read") as caught:
        read_samples(path)
    assert "allow_pickle" not in str(caught.value)


def test_fields_that_nobody_knows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    np.savez(path, surprise=np.zeros(1))
    with pytest.raises(InvalidSamples, match="surprise"):
        read_samples(path)
