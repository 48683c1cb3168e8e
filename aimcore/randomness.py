"""Randomness that belongs to a sample: a pure function of (seed, purpose, sample number).

Nothing is stored and nothing is drawn in sequence, so ranks and workers differ, and a resumed run goes on as if it
had never stopped, on any number of processes. The mixing function is the finaliser of SplitMix64 (Steele, Lea and
Flood, OOPSLA 2014), chained over the parts of the key.
"""

import hashlib

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(values: Numbers) -> Numbers:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def keyed_bits(seed: int, purpose: str, numbers: npt.ArrayLike) -> Numbers:
    """64 random bits for each of ``numbers``, independent between seeds and purposes.

    Args:
        seed: the run's seed; any integer.
        purpose: what the bits are for (``"prefix"``, ``"crop"``); different purposes give unrelated bits.
        numbers: non-negative integers, of any shape; the result has that shape.
    """
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    key = np.frombuffer(digest, dtype=np.uint64)[0]
    with np.errstate(over="ignore"):
        return _mix(_mix(np.asarray(numbers, dtype=np.uint64) * _GOLDEN + key) ^ key)


def keyed_uniform(seed: int, purpose: str, numbers: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """A float in [0, 1) for each of ``numbers``."""
    return (keyed_bits(seed, purpose, numbers) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def keyed_integers(
    seed: int, purpose: str, numbers: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike
) -> npt.NDArray[np.int64]:
    """An integer in [low, high) for each of ``numbers``; bounds may differ per number."""
    low_array, high_array = np.asarray(low, dtype=np.int64), np.asarray(high, dtype=np.int64)
    drawn = np.floor(keyed_uniform(seed, purpose, numbers) * (high_array - low_array)).astype(np.int64)
    return low_array + drawn
