"""Writers of samples: a source's layout in the other direction, written in parts by several processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

import attrs

from aimcore.contracts.batches import Sample
from aimcore.contracts.component import Component


@attrs.frozen(eq=False)
class WrittenSample:
    """A sample to write."""

    index: int
    """Its number in the source: names of files and keys are made of it."""
    sample: Sample
    content: bytes | None
    """The content of its image file; None if the pixels are not from a file."""


@attrs.frozen
class Written:
    """What all parts contain."""

    num_parts: int
    num_samples: int
    class_names: tuple[str, ...]
    caption_kinds: tuple[str, ...]
    """Kinds of captions that occur, sorted."""
    num_labelled: int
    left_out: dict[str, int]
    """Numbers of samples that were left out, by reason."""


class SampleWriter(ABC):
    """Writes samples to a folder, from where they are moved to their place.

    Parts are written in any order by any process, also again after an interruption; the same samples must give equal
    files. What is in ``folder/out`` at the end is moved next to each other into the folder of the destination.
    """

    @property
    @abstractmethod
    def path(self) -> Path:
        """Where the result will be, on a local disk; its name may have one ``*`` for the number of a part."""

    @property
    def is_divisible(self) -> bool:
        """Whether there may be several parts: False for a destination that is one file."""
        return True

    @abstractmethod
    def write_part(
        self, folder: Path, part: int, samples: Iterable[WrittenSample], class_names: tuple[str, ...]
    ) -> None:
        """Write one part below ``folder``, over what an interrupted call may have left there.

        Args:
            folder: a folder on a local disk, which all parts share. Results are in its folder ``out``, everything else
                in its folder ``spool``; both exist.
            part: number of the part.
            samples: its samples, which are read while they are written.
            class_names: names of the classes by label; empty if they are not known.
        """

    @abstractmethod
    def finish(self, folder: Path, written: Written) -> Component:
        """Complete ``folder/out`` after all parts were written, and return the source that will read it in its place.

        It may be called again after an interruption.

        Raises:
            AimcoreError: the layout cannot express the samples.
        """
