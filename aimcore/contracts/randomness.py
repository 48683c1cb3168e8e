"""Randomness that belongs to a sample: a pure function of (seed, purpose, sample number).

No state is stored and nothing is drawn in sequence. So the samples of different ranks and workers have independent
randomness, and a resumed run continues exactly as without the interruption, on any number of processes. The mixing
function is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), chained over the parts of the key.
"""

import hashlib

import numpy as np
import numpy.typing as npt
import torch

EVALUATION_SEED = 0
"""The seed of everything random about a sample in validation, probing and evaluations, the same for all runs."""

Numbers = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# Luby and Rackoff (SIAM J. Comput. 17, 1988) require four rounds; two more help halves of few bits.
_ROUNDS = 6
# With fewer than 3 bits per half, a Feistel network reaches too few permutations of a handful of images.
_MIN_HALF_BITS = 3


def _mix(values: Numbers) -> Numbers:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def keyed_bits(seed: int, purpose: str, numbers: npt.ArrayLike) -> Numbers:
    """Return 64 random bits for each of ``numbers``, independent between seeds and purposes.

    Args:
        seed: the run's seed; any integer.
        purpose: a name for the use of the bits (``"prefix"``, ``"crop"``); different purposes give unrelated bits.
        numbers: non-negative integers, of any shape; the result has that shape.
    """
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    key = np.frombuffer(digest, dtype=np.uint64)[0]
    with np.errstate(over="ignore"):
        return _mix(_mix(np.asarray(numbers, dtype=np.uint64) * _GOLDEN + key) ^ key)


def smallest_hashes(numbers: Indices, count: int, seed: int, purpose: str) -> Indices:
    """Return the ``count`` of ``numbers`` with the smallest hashes: a random subset that contains all smaller ones.

    >>> few, more = (smallest_hashes(np.arange(9), count, 0, "example").tolist() for count in (2, 5))
    >>> len(few), set(few) < set(more)
    (2, True)
    """
    return numbers[np.argsort(keyed_bits(seed, purpose, numbers), kind="stable")[:count]]


def keyed_uniform(seed: int, purpose: str, numbers: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return a float in [0, 1) for each of ``numbers``; arguments as for :func:`keyed_bits`."""
    return (keyed_bits(seed, purpose, numbers) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def keyed_integers(
    seed: int, purpose: str, numbers: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike
) -> npt.NDArray[np.int64]:
    """Return an integer in [low, high) for each of ``numbers``; the bounds may differ per number."""
    low_array, high_array = np.asarray(low, dtype=np.int64), np.asarray(high, dtype=np.int64)
    drawn = np.floor(keyed_uniform(seed, purpose, numbers) * (high_array - low_array)).astype(np.int64)
    return low_array + drawn


def seed_torch(seed: int) -> None:
    """Seed torch's global generators, as ``torch.manual_seed`` does.

    Without an accelerator, ``torch.manual_seed`` stores each call and its stack for devices that may be initialised
    later. A run seeds at every step, and each call would cost half a millisecond and leak a few kilobytes.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def index_of(sample_numbers: npt.ArrayLike, size: int, seed: int) -> Indices:
    """Return the image index in [0, size) of each sample number; within an epoch every index occurs once.

    The permutation is a Feistel network over the next even power of two, applied again until the result is below
    ``size`` (cycle walking: Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002).

    Args:
        sample_numbers: non-negative integers of any shape, from any epochs.
        size: number of images, at least 1.
        seed: the run's seed.

    >>> first, second = index_of(range(8), 4, seed=0).reshape(2, 4)
    >>> sorted(first.tolist()), sorted(second.tolist())
    ([0, 1, 2, 3], [0, 1, 2, 3])
    """
    numbers = np.asarray(sample_numbers, dtype=np.uint64)
    epochs, indices = np.divmod(numbers.reshape(-1), np.uint64(size))
    half_bits = max(_MIN_HALF_BITS, (max(size - 1, 1).bit_length() + 1) // 2)
    outside = np.arange(indices.size)
    while outside.size:
        indices[outside] = _feistel(indices[outside], epochs[outside], half_bits, seed)
        outside = outside[indices[outside] >= size]
    return indices.astype(np.int64).reshape(numbers.shape)


def _feistel(indices: Numbers, epochs: Numbers, half_bits: int, seed: int) -> Numbers:
    """Permute [0, 4**half_bits), differently in each epoch."""
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = indices >> shift, indices & mask
    for round_number in range(_ROUNDS):
        # The epoch is in the bits above the half, so that one call mixes numbers of several epochs.
        scrambled = keyed_bits(seed, f"epoch order {round_number}", (epochs << shift) | right)
        left, right = right, left ^ (scrambled & mask)
    return (left << shift) | right
