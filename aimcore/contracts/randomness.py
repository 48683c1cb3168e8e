"""Randomness that belongs to a sample: a pure function of (seed, purpose, sample number).

Nothing is stored and nothing is drawn in sequence, so ranks and workers differ, and a resumed run goes on as if it
had never stopped, on any number of processes. The mixing function is the finaliser of SplitMix64 (Steele, Lea and
Flood, OOPSLA 2014), chained over the parts of the key.
"""

import hashlib

import numpy as np
import numpy.typing as npt
import torch

EVALUATION_SEED = 0
"""The seed of everything random about a sample in validation, probing and evaluations: all runs are measured alike."""

Numbers = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# Luby and Rackoff (SIAM J. Comput. 17, 1988) need four rounds; halves of a few bits are helped by two more.
_ROUNDS = 6
# Below 3 bits per half a Feistel network reaches too few of the permutations of a handful of images.
_MIN_HALF_BITS = 3


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


def seed_torch(seed: int) -> None:
    """Seed torch's global generators, as ``torch.manual_seed`` does.

    Without an accelerator ``torch.manual_seed`` keeps the call and its stack for each kind of device that may be
    started later: half a millisecond and a few kilobytes at every call, never given back. A run seeds at every step.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def index_of(sample_numbers: npt.ArrayLike, size: int, seed: int) -> Indices:
    """Image index in [0, size) of each sample number; within an epoch every index occurs once.

    The permutation is a Feistel network over the next even power of two, walked on until it lands below ``size``
    (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002).

    Args:
        sample_numbers: non-negative integers of any shape, from any epochs.
        size: number of images, at least 1.
        seed: the run's seed.

    >>> first, second = index_of(range(8), 4, seed=0).reshape(2, 4)
    >>> sorted(first.tolist()), sorted(second.tolist())
    ([0, 1, 2, 3], [0, 1, 2, 3])
    """
    numbers = np.asarray(sample_numbers, dtype=np.uint64)
    epochs, places = np.divmod(numbers.reshape(-1), np.uint64(size))
    half_bits = max(_MIN_HALF_BITS, (max(size - 1, 1).bit_length() + 1) // 2)
    outside = np.arange(places.size)
    while outside.size:
        places[outside] = _feistel(places[outside], epochs[outside], half_bits, seed)
        outside = outside[places[outside] >= size]
    return places.astype(np.int64).reshape(numbers.shape)


def _feistel(places: Numbers, epochs: Numbers, half_bits: int, seed: int) -> Numbers:
    """A permutation of [0, 4**half_bits), another one in each epoch."""
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = places >> shift, places & mask
    for round_number in range(_ROUNDS):
        # The epoch stands above the half's bits: one call mixes numbers of several epochs.
        scrambled = keyed_bits(seed, f"epoch order {round_number}", (epochs << shift) | right)
        left, right = right, left ^ (scrambled & mask)
    return (left << shift) | right
