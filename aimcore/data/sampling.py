"""The image of a sample number, and the sample numbers of a rank's micro-batch.

A run is one endless stream of samples, numbered from 0: sample number = step * batch_size + place. Within each epoch
(``size`` numbers) the image index is a keyed permutation of the place. It is computed, never stored, so that any
rank, worker or resumed run finds the same image for the same number.
"""

import numpy as np
import numpy.typing as npt

from aimcore.contracts.errors import InvalidValue
from aimcore.experiment import Data

Indices = npt.NDArray[np.int64]


def micro_batch_size(batch_size: int, world_size: int, accumulation_steps: int) -> int:
    """Return the number of samples in one micro-batch on one rank.

    Raises:
        InvalidValue: the batch does not divide evenly; the message names sizes that divide.

    >>> micro_batch_size(32, world_size=2, accumulation_steps=4)
    4
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
    """Refuse steps that do not divide over the processes and micro-batches.

    Raises:
        InvalidValue: it does not divide; the message names numbers that do.
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
    """Return sample numbers ``[m]`` of one rank's micro-batch; all ranks and micro-batches together make up the step.

    Number = step * batch_size + (micro * world_size + rank) * m + place, m = batch_size / (world_size *
    accumulation_steps).

    Raises:
        InvalidValue: the batch does not divide evenly.
    """
    size = micro_batch_size(batch_size, world_size, accumulation_steps)
    return part_of_step(step * batch_size, size, micro * world_size + rank)


def part_of_step(first: int, size: int, part: int) -> Indices:
    """Return sample numbers ``[size]`` of one part of a step, whose first sample has the number ``first``."""
    return np.arange(first + part * size, first + (part + 1) * size, dtype=np.int64)
