"""Recognition of a file's layout by the names and shapes of its tensors, among the installed layouts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs
from torch import Tensor

from aimcore.contracts.errors import AimcoreError
from aimcore.contracts.layouts import FileLayout
from aimcore.contracts.messages import shown
from aimcore.contracts.tensor_maps import TableFit
from aimcore.io.locations import local_path
from aimcore.io.preprocessor_files import CONFIG_FILE
from aimcore.io.weight_files import SHARD, StoredWeights
from aimcore.registry.plugins import installed

_TRANSFORMERS = "embeddings.patch_embedding"
"""In the names of most vision encoders of transformers."""


class UnknownWeights(AimcoreError):
    """A file's tensors fit no layout, or several, or not the model that their shapes describe."""


@attrs.frozen
class _Candidate:
    layout: FileLayout
    fit: TableFit

    @property
    def distance(self) -> tuple[int, int]:
        """How far the file is from the layout: the number of problems, then the number of known tensors."""
        fit = self.fit
        return len(fit.unknown) + len(fit.missing) + len(fit.misshapen), -fit.known


def installed_layouts() -> tuple[FileLayout, ...]:
    """Return all installed layouts, by name."""
    registry = installed().registry(FileLayout.role)
    return tuple(cls() for _, cls in registry.items())


def layout_called(name: str) -> FileLayout:
    """Return the installed layout of this name.

    Raises:
        UnknownComponent: there is none.
    """
    layout: FileLayout = installed().registry(FileLayout.role).get(name)()
    return layout


def layout_of(tensors: Mapping[str, Tensor], source: str, *, name: str | None = None) -> FileLayout:
    """Return the layout that all tensors fit. They may be on the meta device.

    Args:
        tensors: the tensors of the file.
        source: what the file is called in messages.
        name: the layout that the file must have; None finds it.

    Raises:
        UnknownWeights: no layout fits, and the message says why the nearest does not; or several do.
        UnknownComponent: no layout is called ``name``.
    """
    layouts = installed_layouts() if name is None else (layout_called(name),)
    candidates = [_Candidate(layout, layout.fit(tensors)) for layout in layouts]
    fitting = [one.layout for one in candidates if not one.fit.problems]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(f"{layout.name!r} ({layout.title})" for layout in fitting)
        raise UnknownWeights(f"{source} fits several layouts: {names}. Say which one it has: layout=NAME")
    for layout in layouts:
        if explanation := layout.explain(tensors):
            raise UnknownWeights(f"{source}: {explanation}")
    if name is not None:
        raise UnknownWeights(_not_in_layout(tensors, source, candidates[0]))
    raise UnknownWeights(_no_layout(tensors, source, candidates))


def _not_in_layout(tensors: Mapping[str, Tensor], source: str, chosen: _Candidate) -> str:
    """Say why a file does not fit the layout that was asked for, and which layout it has."""
    others = [one.name for one in installed_layouts() if not one.fit(tensors).problems]
    hint = f". It fits {', '.join(map(repr, others))}: give that layout, or none" if others else ""
    return (
        f"{source} does not fit the layout that was given, {chosen.layout.title} ({chosen.layout.name!r}), which "
        f"describes {chosen.fit.known} of its {len(tensors)} tensors: {'; '.join(chosen.fit.problems)}{hint}"
    )


def _no_layout(tensors: Mapping[str, Tensor], source: str, candidates: Iterable[_Candidate]) -> str:
    """Say which layout is nearest, and why the file does not fit it."""
    known = [one for one in candidates if one.fit.known]
    hint = ". It is one of several shards: give their folder, or the index" if SHARD.search(source) else ""
    if not known:
        names, more = ", ".join(map(shown, list(tensors)[:3])), f" and {len(tensors) - 3} more" * (len(tensors) > 3)
        return (
            f"{source} is in no known layout: it has the tensors {names}{more}{hint}. 'aimcore describe layouts' lists "
            "the layouts"
        )
    nearest = min(known, key=lambda one: one.distance)
    problems = "; ".join(nearest.fit.problems)
    return (
        f"{source} is in no known layout. It is nearest to {nearest.layout.title} ({nearest.layout.name!r}), which "
        f"describes {nearest.fit.known} of its {len(tensors)} tensors: {problems}{hint}"
    )


def recognised(
    weights: StoredWeights, probe: StoredWeights | None, config: Mapping[str, Any] | None, name: str | None
) -> FileLayout:
    """Return the layout of a file, and of the file of a probe that belongs to it.

    Args:
        weights: the file.
        probe: the file of the probe, if it is another one.
        config: the content of the ``config.json`` next to the file, if there is one.
        name: the layout that the file must have; None finds it.

    Raises:
        UnknownWeights: none fits; its notes say how files of other libraries are opened.
    """
    try:
        return layout_of(_joined(weights, probe), weights.url, name=name)
    except UnknownWeights as error:
        for note in _other_libraries(weights, config):
            error.add_note(note)
        raise


def _other_libraries(weights: StoredWeights, config: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield how weights of another library are opened, if they look like it."""
    folder = weights.url.rpartition("/")[0] or "."
    has_config = config is not None and "model_type" in config
    if has_config or any(_TRANSFORMERS in name for name in weights.shapes):
        config_first = "" if has_config else f"put its {CONFIG_FILE} next to it, and "
        copy_first = "" if local_path(weights.url) is not None else "copy its folder to this machine, and "
        known = "FOLDER" if copy_first else folder
        yield f"if transformers wrote it, {copy_first}{config_first}give it as transformers:{known}"
    elif "patch_embed.proj.weight" in weights.shapes:  # the name in timm's Vision Transformers
        model = "MODEL" if config is None else config.get("architecture", "MODEL")
        yield f"if timm wrote it, give it as timm:{model}@{weights.url}, with the model's name in timm"


def _joined(weights: StoredWeights, probe: StoredWeights | None) -> Mapping[str, Tensor]:
    if probe is None:
        return weights.shapes
    twice = sorted(weights.shapes.keys() & probe.shapes.keys())
    if twice:
        raise UnknownWeights(
            f"{weights.url} and {probe.url} both have {shown(twice[0])}: the head is in the file already"
        )
    return {**weights.shapes, **probe.shapes}
