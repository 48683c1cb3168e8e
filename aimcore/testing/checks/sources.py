"""Checks of sources: every index returns one sample, the same in every process and thread."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import torch

from aimcore.contracts.batches import Sample
from aimcore.contracts.sources import OpenSource, Source
from aimcore.testing.checks import Check
from aimcore.testing.requirements import explained, require, shape_of

_SEVERAL = 8
_THREADS = 4
_IN_THREADS = f"a source that is opened in one thread and read in {_THREADS} others at once, as in training,"
_OPEN_THERE = (
    "open files and connections in read(), or keep one per thread (threading.local), and keep no state between reads"
)
_IMAGE = "images are uint8 [C, H, W] with 1 to 4 channels"


def check_its_length_is_a_positive_number(source: Source) -> None:
    """``len`` is the number of samples, at least 1."""
    with explained("len() of the open source fails"):
        length = len(source.open())
    require(length > 0, "the open source has no samples: let open() raise DataNotFound, and name what is missing")


def check_images_are_bytes_with_channels_first(source: Source) -> None:
    """Images are ``uint8 [C, H, W]`` on the CPU."""
    for sample in _samples(source.open()):
        image = sample.image
        good = image.dtype == torch.uint8 and image.dim() == 3 and 1 <= image.shape[0] <= 4
        require(good and image.device.type == "cpu", f"{_IMAGE}, got {shape_of(image)} for sample {sample.identifier}")


def check_labels_agree_with_the_samples(source: Source) -> None:
    """``label(index)`` equals the label of ``read(index)``: an int for every sample, or None for every sample."""
    opened = source.open()
    given = [(opened.label(index), opened.read(index).label) for index in _indices(opened)]
    require(all(one == other for one, other in given), f"label(index) and read(index).label differ: {given}")
    kinds = {type(label) for label, _ in given}
    require(kinds <= {int} or kinds <= {type(None)}, f"labels must all be int, or all None, got {given}")


def check_known_labels_are_those_of_the_samples(source: Source) -> None:
    """``known_labels()`` is None, or an integer array of all labels by index, with -1 where a sample has none."""
    opened = source.open()
    known_n = opened.known_labels()
    if known_n is None:
        return
    good = known_n.shape == (len(opened),) and known_n.dtype.kind == "i"
    require(good, f"known_labels() must be {len(opened)} integers, got {known_n.dtype} {list(known_n.shape)}")
    for index in _indices(opened):
        label, known = opened.label(index), int(known_n[index])
        require(known == (-1 if label is None else label), f"known_labels() has {known} for label {label} at {index}")


def check_labels_are_indices_of_class_names(source: Source) -> None:
    """Labels count from 0 and are below the number of class names, where there are names."""
    opened = source.open()
    labels = [label for label in map(opened.label, _indices(opened)) if label is not None]
    number = len(opened.class_names) or max([0, *labels]) + 1
    wrong = [label for label in labels if not 0 <= label < number]
    require(not wrong, f"labels {wrong} are out of range: there are {number} class names")


def check_captions_are_tuples_of_text_by_kind(source: Source) -> None:
    """``captions`` maps each kind to a tuple of texts, even if it has only one text."""
    for sample in _samples(source.open()):
        for kind, texts in sample.captions.items():
            good = type(kind) is str and type(texts) is tuple and all(type(text) is str for text in texts)
            require(
                good,
                f"captions must be {{kind: (text, ...)}}, got {{{kind!r}: {texts!r}}} for sample {sample.identifier}",
            )


def check_extras_of_one_key_are_of_one_kind(source: Source) -> None:
    """``extras`` of one key are tensors on the CPU in all samples, or in none: a batch stacks them."""
    kinds: dict[str, set[bool]] = {}
    for sample in _samples(source.open()):
        for key, value in sample.extras.items():
            kinds.setdefault(key, set()).add(isinstance(value, torch.Tensor))
            on_cpu = not isinstance(value, torch.Tensor) or value.device.type == "cpu"
            require(on_cpu, f"extra {key!r} of sample {sample.identifier} must be on the CPU")
    mixed = sorted(key for key, found in kinds.items() if len(found) > 1)
    require(not mixed, f"extras {mixed} are tensors in some samples and not in others: a batch stacks tensors")


def check_indices_depend_on_the_sample_number_alone(source: Source) -> None:
    """``indices_of`` returns an index of the source for each sample number, which depends on nothing else."""
    opened, numbers = source.open(), np.arange(3 * _SEVERAL)
    if not len(opened):
        return
    together = opened.indices_of(numbers, 0)
    good = together.shape == numbers.shape and bool(((together >= 0) & (together < len(opened))).all())
    require(good, f"indices_of must return one index from 0 to {len(opened) - 1} per sample number, got {together}")
    other = source.open()  # one number per call, the last one first
    apart = np.concatenate([other.indices_of(numbers[place : place + 1], 0) for place in reversed(numbers)])
    require(
        bool((together == apart[::-1]).all()),
        "the index of a sample number depends on the other numbers of the call, or on earlier calls: ranks and resumed "
        "runs would read other images",
    )


def check_reading_again_gives_the_same_sample(source: Source) -> None:
    """A sample depends on its index only, and a change of a returned sample changes no later one."""
    opened = source.open()
    first = _samples(opened)
    kept = [sample.image.clone() for sample in first]
    for sample in first:
        sample.image.fill_(0)
    again = _samples(opened)
    same = all(torch.equal(one, other.image) for one, other in zip(kept, again, strict=True))
    require(
        same and [one.identifier for one in first] == [other.identifier for other in again],
        "reading an index twice gives different samples: do not augment in a source, and let samples share no memory",
    )


def check_identifiers_name_one_sample_each(source: Source) -> None:
    """Identifiers are text, and no two samples share one: messages name samples by them."""
    names = [sample.identifier for sample in _samples(source.open())]
    require(
        all(type(name) is str and name for name in names) and len(set(names)) == len(names),
        f"identifiers must be text, different for every sample, got {names[:4]}",
    )


def check_what_is_left_out_is_counted_by_reason(source: Source) -> None:
    """``left_out`` maps reasons to counts; it may be omitted if nothing is left out."""
    counts: object = source.open().left_out
    good = isinstance(counts, Mapping) and all(
        type(reason) is str and type(count) is int and count >= 0 for reason, count in counts.items()
    )
    require(good, f'left_out must be {{reason: count}}, such as {{"broken links": 3}}, got {counts!r}')


def check_an_index_beyond_the_end_is_an_index_error(source: Source) -> None:
    """``read(len)`` raises IndexError."""
    opened = source.open()
    try:
        opened.read(len(opened))
    except IndexError:
        return
    require(False, f"the source has {len(opened)} samples, but read({len(opened)}) returned one: raise IndexError")


def check_it_travels_to_data_workers(source: Source) -> None:
    """The open source can be pickled, as for data workers, and returns the same samples afterwards."""
    opened = source.open()
    before = _samples(opened)
    with explained(
        "the open source cannot be pickled, as it is for data workers: open files in read(), or exclude files, "
        "connections and threading.local from what __getstate__ returns"
    ):
        # Unpickling is safe here: the value was pickled in the same expression.
        arrived: OpenSource = pickle.loads(_pickled(opened))
    after = _samples(arrived)
    alike = all(torch.equal(one.image, other.image) for one, other in zip(before, after, strict=True))
    require(alike and len(arrived) == len(opened), "the unpickled source returns other samples")


def check_it_is_read_in_any_thread(source: Source) -> None:
    """A source that is opened in one thread returns the same samples in several others at once."""
    expected, opened = _samples(source.open()), source.open()
    together = Barrier(_THREADS)

    def read(number: int) -> list[Sample]:
        indices = [*_indices(opened)]
        turned = indices[number:] + indices[:number]  # so that no two threads read the same sample at a time
        together.wait()
        found = {index: opened.read(index) for index in turned}
        return [found[index] for index in indices]

    with ThreadPoolExecutor(_THREADS) as pool:
        reads = [pool.submit(read, number) for number in range(_THREADS)]
    faults = [fault for each in reads if (fault := each.exception()) is not None]
    raised = "; ".join(f"{type(fault).__name__} ({fault})" for fault in faults[:1])
    require(not faults, f"{_IN_THREADS} raises {raised}: {_OPEN_THERE}")
    differing = [
        sample.identifier
        for each in reads
        for sample, other in zip(expected, each.result(), strict=True)
        if sample.identifier != other.identifier or not torch.equal(sample.image, other.image)
    ]
    require(not differing, f"{_IN_THREADS} returns other samples ({', '.join(differing[:3])}): {_OPEN_THERE}")


CHECKS: tuple[Check, ...] = (
    check_its_length_is_a_positive_number,
    check_images_are_bytes_with_channels_first,
    check_labels_agree_with_the_samples,
    check_known_labels_are_those_of_the_samples,
    check_labels_are_indices_of_class_names,
    check_captions_are_tuples_of_text_by_kind,
    check_extras_of_one_key_are_of_one_kind,
    check_indices_depend_on_the_sample_number_alone,
    check_reading_again_gives_the_same_sample,
    check_identifiers_name_one_sample_each,
    check_what_is_left_out_is_counted_by_reason,
    check_an_index_beyond_the_end_is_an_index_error,
    check_it_travels_to_data_workers,
    check_it_is_read_in_any_thread,
)


def _indices(opened: OpenSource) -> Sequence[int]:
    """The indices of the first samples and of the last one."""
    length = len(opened)
    return sorted({*range(length)[:_SEVERAL], *range(length)[-1:]})


def _samples(opened: OpenSource) -> list[Sample]:
    return [opened.read(index) for index in _indices(opened)]


def _pickled(opened: OpenSource) -> bytes:
    try:
        return pickle.dumps(opened)
    except pickle.PicklingError as error:
        raise TypeError(str(error)) from error
