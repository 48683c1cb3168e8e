"""Sources, each broken in one way."""

from __future__ import annotations

import sqlite3
import time

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aimcore import OpenSource, Sample, Source, component
from aimcore.testing.checks import sources as checks

CAPTIONS = {"alt": ("a shade", "another shade")}


class OpenShades(OpenSource):
    class_names = ("dark", "grey", "light")

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return Sample(image=self.image(index), identifier=f"shade-{index}", label=index % 3, captions=CAPTIONS)

    def image(self, index: int) -> Tensor:
        return torch.full((3, 4, 5), index, dtype=torch.uint8)


@component("sound")
class Sound(Source):
    """Twelve plain pictures."""

    count: int = 12

    def open(self) -> OpenSource:
        return OpenShades(self.count)


class OpenMixed(OpenShades):
    def read(self, index: int) -> Sample:
        box = [0.0, 0.0, 1.0, 1.0]
        return attrs.evolve(super().read(index), extras={"box": box if index == 3 else torch.tensor(box)})


@component("mutant")
class Mixed(Sound):
    """Gives a box as a tensor, and once as a list."""

    def open(self) -> OpenSource:
        return OpenMixed(self.count)


class OpenFloats(OpenShades):
    def image(self, index: int) -> Tensor:
        return super().image(index) / 255


@component("mutant")
class Floats(Sound):
    """Gives pixels as floats."""

    def open(self) -> OpenSource:
        return OpenFloats(self.count)


class OpenMislabelled(OpenShades):
    def label(self, index: int) -> int | None:
        return (index + 1) % 3


@component("mutant")
class Mislabelled(Sound):
    """Has one label when asked for the label, another when asked for the sample."""

    def open(self) -> OpenSource:
        return OpenMislabelled(self.count)


class OpenFromOne(OpenShades):
    def read(self, index: int) -> Sample:
        return attrs.evolve(super().read(index), label=index % 3 + 1)


@component("mutant")
class FromOne(Sound):
    """Counts its labels from 1."""

    def open(self) -> OpenSource:
        return OpenFromOne(self.count)


class OpenSingle(OpenShades):
    def read(self, index: int) -> Sample:
        return attrs.evolve(super().read(index), captions={"alt": "a shade"})


@component("mutant")
class Single(Sound):
    """Gives one caption as a text, not as a tuple of one."""

    def open(self) -> OpenSource:
        return OpenSingle(self.count)


class OpenShuffled(OpenShades):
    def indices_of(self, sample_numbers: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng(seed).permutation(len(sample_numbers)) % self.count


@component("mutant")
class Shuffled(Sound):
    """Shuffles those samples that are asked for together."""

    def open(self) -> OpenSource:
        return OpenShuffled(self.count)


class OpenShared(OpenShades):
    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.images = [super(OpenShared, self).image(index) for index in range(count)]

    def image(self, index: int) -> Tensor:
        return self.images[index]


@component("mutant")
class Shared(Sound):
    """Gives out its own memory, for anybody to change."""

    def open(self) -> OpenSource:
        return OpenShared(self.count)


class OpenNameless(OpenShades):
    def read(self, index: int) -> Sample:
        return attrs.evolve(super().read(index), identifier="a shade")


@component("mutant")
class Nameless(Sound):
    """Calls all samples the same."""

    def open(self) -> OpenSource:
        return OpenNameless(self.count)


class OpenUncounted(OpenShades):
    left_out = ("a broken link", "another broken link")  # type: ignore[assignment]


@component("mutant")
class Uncounted(Sound):
    """Lists what it leaves out, instead of counting it."""

    def open(self) -> OpenSource:
        return OpenUncounted(self.count)


class OpenShifted(OpenShades):
    def known_labels(self) -> npt.NDArray[np.int64]:
        return (np.arange(self.count) + 1) % 3


@component("mutant")
class Shifted(Sound):
    """Knows the label of the next sample for each."""

    def open(self) -> OpenSource:
        return OpenShifted(self.count)


class OpenEndless(OpenShades):
    def read(self, index: int) -> Sample:
        return super().read(index % self.count)


@component("mutant")
class Endless(Sound):
    """Begins again at its end."""

    def open(self) -> OpenSource:
        return OpenEndless(self.count)


class OpenRooted(OpenShades):
    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.shade = lambda index: index


@component("mutant")
class Rooted(Sound):
    """Holds a function that cannot be pickled."""

    def open(self) -> OpenSource:
        return OpenRooted(self.count)


class OpenTied(OpenShades):
    """Its connection belongs to the thread that made it."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.connection = sqlite3.connect(":memory:")
        self.connection.execute("create table shades as select 0 as shade")
        for shade in range(1, count):
            self.connection.execute("insert into shades values (?)", (shade,))

    def __reduce__(self) -> tuple[type[OpenTied], tuple[int]]:
        return type(self), (self.count,)

    def image(self, index: int) -> Tensor:
        ((shade,),) = self.connection.execute("select shade from shades limit 1 offset ?", (index,))
        return super().image(shade)


@component("mutant")
class Tied(Sound):
    """Reads by a connection to SQLite, which the thread that opened it alone may use."""

    def open(self) -> OpenSource:
        return OpenTied(self.count)


class OpenSeeking(OpenShades):
    """Remembers where it reads."""

    place = 0

    def image(self, index: int) -> Tensor:
        self.place = index
        time.sleep(0.002)
        return super().image(self.place)


@component("mutant")
class Seeking(Sound):
    """Moves to a place, and reads there: another thread may have moved on."""

    def open(self) -> OpenSource:
        return OpenSeeking(self.count)


@component("mutant")
class Empty(Sound):
    """Has no samples, and opens all the same."""

    def open(self) -> OpenSource:
        return OpenShades(0)


SOUND = (Sound(),)
MUTANTS = (
    (checks.check_its_length_is_a_positive_number, Empty()),
    (checks.check_images_are_bytes_with_channels_first, Floats()),
    (checks.check_labels_agree_with_the_samples, Mislabelled()),
    (checks.check_known_labels_are_those_of_the_samples, Shifted()),
    (checks.check_labels_are_indices_of_class_names, FromOne()),
    (checks.check_captions_are_tuples_of_text_by_kind, Single()),
    (checks.check_extras_of_one_key_are_of_one_kind, Mixed()),
    (checks.check_indices_depend_on_the_sample_number_alone, Shuffled()),
    (checks.check_reading_again_gives_the_same_sample, Shared()),
    (checks.check_identifiers_name_one_sample_each, Nameless()),
    (checks.check_what_is_left_out_is_counted_by_reason, Uncounted()),
    (checks.check_an_index_beyond_the_end_is_an_index_error, Endless()),
    (checks.check_it_travels_to_data_workers, Rooted()),
    (checks.check_it_is_read_in_any_thread, Tied()),
    (checks.check_it_is_read_in_any_thread, Seeking()),
)
