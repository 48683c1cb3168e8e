"""Which image a sample number shows, and which sample numbers a rank's micro-batch has.

A run is one endless stream of samples, numbered from 0: sample number = step * batch_size + place. Within each epoch
(``size`` numbers) the image index is a keyed permutation of the place. It is computed, never stored, so that any
rank, worker or resumed run finds the same image for the same number.
"""

import numpy as np
import numpy.typing as npt

from aimcore.errors import InvalidValue
from aimcore.experiment import Data
from aimcore.randomness import Numbers, keyed_bits

Indices = npt.NDArray[np.int64]

# Luby and Rackoff (SIAM J. Comput. 17, 1988) need four rounds; halves of a few bits are helped by two more.
_ROUNDS = 6
# Below 3 bits per half a Feistel network reaches too few of the permutations of a handful of images.
_MIN_HALF_BITS = 3


def index_of(sample_numbers: npt.ArrayLike, size: int, seed: int) -> Indices:
    """Image index in [0, size) of each sample number; within an epoch every index occurs once.

    The permutation is a Feistel network over the next even power of two, walked on until it lands below ``size``
    (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002).

    Args:
        sample_numbers: non-negative integers of any shape, from any epochs.
        size: number of images, at least 1.
        seed: the run's seed.
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


def micro_batch_size(batch_size: int, world_size: int, accumulation_steps: int) -> int:
    """Samples of one micro-batch on one rank.

    Raises:
        InvalidValue: the batch does not divide evenly; the message names sizes that do.
    """
    parts = world_size * accumulation_steps
    if batch_size % parts or batch_size < parts:
        below, above = batch_size // parts * parts, (batch_size // parts + 1) * parts
        good = f"{below} or {above}" if below else f"{above}"
        message = (
            f"{batch_size} samples per step do not divide over {world_size} ranks x {accumulation_steps} "
            f"accumulation steps: use {good}"
        )
        raise InvalidValue("Data", [("batch_size", message)])
    return batch_size // parts


def require_even_batches(data: Data, world_size: int, accumulation_steps: int) -> None:
    """See whether every step divides over the processes and micro-batches.

    Raises:
        InvalidValue: it does not; the message names numbers that do.
    """
    if data.native is None:
        micro_batch_size(data.batch_size, world_size, accumulation_steps)
        return
    parts, multiple = world_size * accumulation_steps, data.native.images_multiple_of
    if multiple % parts:
        message = (
            f"the images of a step, a multiple of {multiple}, do not divide over {world_size} ranks x "
            f"{accumulation_steps} accumulation steps: use a multiple of {parts}"
        )
        raise InvalidValue("Data", [("native.images_multiple_of", message)])


def micro_batch_numbers(
    step: int, micro: int, *, batch_size: int, rank: int = 0, world_size: int = 1, accumulation_steps: int = 1
) -> Indices:
    """Sample numbers ``[m]`` of one rank's micro-batch; over ranks and micro-batches they make up the step.

    Number = step * batch_size + (micro * world_size + rank) * m + place, m = batch_size / (world_size *
    accumulation_steps).

    Raises:
        InvalidValue: the batch does not divide evenly.
    """
    size = micro_batch_size(batch_size, world_size, accumulation_steps)
    return part_of_step(step * batch_size, size, micro * world_size + rank)


def part_of_step(first: int, size: int, part: int) -> Indices:
    """Sample numbers ``[size]`` of one part of a step, whose first sample is number ``first``."""
    return np.arange(first + part * size, first + (part + 1) * size, dtype=np.int64)
