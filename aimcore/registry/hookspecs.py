"""The hooks of a plugin: one per role, each returning the component classes it supplies.

A plugin is a module named by an entry point of the group ``aimcore``::

    from aimcore import hookimpl

    @hookimpl
    def orderings():
        return [Hilbert]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from aimcore.contracts.decoders import Decoder  # fmt: skip
    from aimcore.contracts.evaluations import Evaluation  # fmt: skip
    from aimcore.contracts.heads import Head  # fmt: skip
    from aimcore.contracts.layouts import FileLayout  # fmt: skip
    from aimcore.contracts.objectives import Objective  # fmt: skip
    from aimcore.contracts.optimizers import Optimizer  # fmt: skip
    from aimcore.contracts.orderings import Ordering  # fmt: skip
    from aimcore.contracts.probes import Probe  # fmt: skip
    from aimcore.contracts.sources import Source  # fmt: skip
    from aimcore.contracts.targets import Target  # fmt: skip
    from aimcore.contracts.tokenizers import Tokenizer  # fmt: skip
    from aimcore.contracts.trackers import Tracker  # fmt: skip
    from aimcore.contracts.trunks import Trunk  # fmt: skip

PROJECT = "aimcore"
"""Name of pluggy's project, and of the group of entry points."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def tokenizers() -> Sequence[type[Tokenizer]]:  # type: ignore[empty-body]
    """Supply tokenizers: components that turn text or image patches into discrete ids."""


@hookspec
def orderings() -> Sequence[type[Ordering]]:  # type: ignore[empty-body]
    """Supply orderings: the order in which patches are read."""


@hookspec
def targets() -> Sequence[type[Target]]:  # type: ignore[empty-body]
    """Supply targets: what a patch is predicted as."""


@hookspec
def heads() -> Sequence[type[Head]]:  # type: ignore[empty-body]
    """Supply prediction heads."""


@hookspec
def decoders() -> Sequence[type[Decoder]]:  # type: ignore[empty-body]
    """Supply decoders over image features and text."""


@hookspec
def probes() -> Sequence[type[Probe]]:  # type: ignore[empty-body]
    """Supply probes: classifiers on the frozen trunk."""


@hookspec
def evaluations() -> Sequence[type[Evaluation]]:  # type: ignore[empty-body]
    """Supply evaluations: measurements of a trained objective, such as zero-shot classification."""


@hookspec
def objectives() -> Sequence[type[Objective]]:  # type: ignore[empty-body]
    """Supply objectives: what is minimised."""


@hookspec
def trunks() -> Sequence[type[Trunk]]:  # type: ignore[empty-body]
    """Supply trunks: encoders, and wrappers of encoders."""


@hookspec
def sources() -> Sequence[type[Source]]:  # type: ignore[empty-body]
    """Supply sources of images."""


@hookspec
def optimizers() -> Sequence[type[Optimizer]]:  # type: ignore[empty-body]
    """Supply optimizers: algorithms that update the parameters."""


@hookspec
def trackers() -> Sequence[type[Tracker]]:  # type: ignore[empty-body]
    """Supply trackers: receivers of metrics."""


@hookspec
def layouts() -> Sequence[type[FileLayout]]:  # type: ignore[empty-body]
    """Supply layouts of files of weights: how their tensors map to trunks."""


HOOKS: tuple[str, ...] = (
    "tokenizers", "orderings", "targets", "heads", "decoders", "probes", "evaluations", "objectives", "trunks",
    "sources", "optimizers", "trackers", "layouts",
)  # fmt: skip
"""Names of all hooks, which are those of the roles; listed here so that torch is not loaded."""
