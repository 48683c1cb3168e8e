"""What a sample holds besides its image, label and captions: values and further images, checked when they are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from aimcore.contracts.batches import Extra, Sample, View
from aimcore.contracts.errors import UnreadableSample
from aimcore.contracts.sources import OpenSource

_ENOUGH = 16
"""So many readable samples without a value, and a source is taken to have none."""


def read_extras(sample: Sample, extras: Sequence[Extra]) -> dict[str, Any]:
    """The values of ``sample`` that are asked for.

    Raises:
        UnreadableSample: one is missing, or is another kind of tensor than its example.
    """
    return {extra.key: _value(sample, extra) for extra in extras}


def _value(sample: Sample, extra: Extra) -> Any:
    value = _known(sample, extra.key)
    if not isinstance(extra.example, Tensor):
        return value
    if not isinstance(value, Tensor) or (value.shape, value.dtype) != (extra.example.shape, extra.example.dtype):
        raise UnreadableSample(
            sample.identifier, f"its extra {extra.key!r} must be {_kind(extra.example)}, got {_kind(value)}"
        )
    return value.clone()  # a view of a larger tensor would keep all of it in memory


def aligned_image(sample: Sample, view: View) -> Tensor:
    """The image of the sample's extras that ``view`` renders, ``[C, H, W]`` integers.

    Raises:
        UnreadableSample: it is missing, holds no integers, or is not as large as the sample's image.
    """
    assert view.of is not None
    image = _known(sample, view.of)
    wanted = (view.num_channels, *sample.image.shape[1:])
    if isinstance(image, Tensor) and image.dim() == 2:
        image = image.unsqueeze(0)
    if not isinstance(image, Tensor) or image.is_floating_point() or image.is_complex() or image.shape != wanted:
        raise UnreadableSample(
            sample.identifier,
            f"its extra {view.of!r} must be an image {list(wanted)} of integers, as large as the sample's image, got "
            f"{_kind(image)}",
        )
    return image.to(torch.uint8) if image.dtype == torch.bool else image


def collated(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Values by key: tensors stacked, others as a tuple."""
    keys = examples[0] if examples else ()
    columns = {key: tuple(example[key] for example in examples) for key in keys}
    return {
        key: torch.stack(values) if all(isinstance(value, Tensor) for value in values) else values
        for key, values in columns.items()
    }


def missing_extras(source: OpenSource, views: Sequence[View], extras: Sequence[Extra]) -> Iterator[str]:
    """Yield the keys, with quotes, that none of the first samples that can be read has; none where none can be read."""
    wanted = dict.fromkeys([*(extra.key for extra in extras), *(view.of for view in views if view.of is not None)])
    samples = list(_first_samples(source)) if wanted else []
    if samples:
        known = sorted({key for sample in samples for key in sample.extras})
        for key in wanted:
            if key not in known:
                yield f"{key!r} (they have {known or 'none'})"


def _first_samples(source: OpenSource) -> Iterator[Sample]:
    for index in range(min(len(source), _ENOUGH)):
        try:
            yield source.read(index)
        except UnreadableSample:
            continue


def _known(sample: Sample, key: str) -> Any:
    if key not in sample.extras:
        raise UnreadableSample(sample.identifier, f"it has no extra {key!r} (it has {sorted(sample.extras)})")
    return sample.extras[key]


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__
