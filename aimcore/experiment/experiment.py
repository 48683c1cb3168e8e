"""The experiment: everything that determines one run and its results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import attrs

from aimcore.contracts import limits
from aimcore.contracts.component import Checked, at_least, settings
from aimcore.contracts.errors import Problem
from aimcore.contracts.evaluations import Evaluation
from aimcore.contracts.objectives import Objective
from aimcore.contracts.optimizers import Optimizer
from aimcore.contracts.probes import Probe
from aimcore.contracts.trackers import Tracker
from aimcore.contracts.trunks import Trunk
from aimcore.experiment.capabilities import capability_problems
from aimcore.experiment.data import Data
from aimcore.experiment.default_optimizer import default_optimizer
from aimcore.experiment.initialization import WHOLE, Branch, Weights, overlap_problems
from aimcore.experiment.names import name_problems
from aimcore.experiment.probe_fit import augmentation_problems, every_layer_problems
from aimcore.experiment.sizes import (
    extra_token_problems,
    native_size_problems,
    probe_size_problems,
    training_size_problems,
    view_problems,
)
from aimcore.experiment.training import Engine, Schedule


def _without_needless_tuple(weights: Any) -> Any:
    """Equal experiments have equal recipes: a tuple of one file is that file, and an empty one is None."""
    if isinstance(weights, list | tuple) and len(weights) < 2:
        return weights[0] if weights else None
    return weights


@settings
class Experiment(Checked):
    """One run: everything that determines its results."""

    name: str
    data: Data
    trunk: Trunk
    objective: Objective
    num_steps: int
    """Number of updates. With 0 nothing is trained: the trunk is measured with its initial weights, as a frozen
    baseline. There are no checkpoints, and validation losses only if files give the weights of the whole objective."""
    optimizer: Optimizer = attrs.field(factory=default_optimizer)
    """Optimizer; by default the installed ``adamw``."""
    schedule: Schedule = Schedule()
    engine: Engine = Engine()
    probes: tuple[Probe, ...] = ()
    probe_attention: Literal["bidirectional", "causal"] = "bidirectional"
    """Attention of the frozen trunk while it is probed (arXiv:2401.08541, Table 3d)."""
    probe_image_sizes: tuple[int, ...] = ()
    """Further image sizes to probe at, in pixels, besides ``data.image_size`` (arXiv:2411.14402, Table 6); their scores
    are called ``linear@448`` and the like."""
    probe_native_area: int | None = None
    """Number of patches for additional probes at native aspect ratios: each image is resized to fit in this many
    patches. The scores are called ``linear@native`` and the like."""
    probe_every_layer: bool = False
    """Whether every block is probed by itself, and every window of six consecutive blocks (arXiv:2401.08541, Table 7
    and Figure 10), on the trained trunk at the experiment's own image size. The scores are called
    ``linear@best_layer``, ``linear@last_six``, ``linear@best_window`` and the like; blocks are chosen on held-out
    training images. The outputs of all blocks are stored in the feature cache, or in a temporary folder."""
    probe_labels_per_class: tuple[int, ...] = ()
    """Numbers of labelled images per class with which each probe is fitted again, such as ``(10, 100, 1000)``.
    Held-out images count. The report draws accuracy against the number of labels."""
    probe_label_draws: int = 3
    """Number of draws of the images for each of ``probe_labels_per_class``."""
    evaluations: tuple[Evaluation, ...] = ()
    trackers: tuple[Tracker, ...] = ()
    checkpoint_every: int | None = None
    """Steps between checkpoints; None saves at the end and on interruption only."""
    validate_every: int | None = None
    """Steps between validations while training, for curves such as arXiv:2401.08541, Figures 4 and 5; None validates
    only after training."""
    log_every: int = 1
    """Steps between lines of ``metrics.jsonl``."""
    seed: int = 0
    initial_weights: Weights | tuple[Weights, ...] | None = attrs.field(default=None, converter=_without_needless_tuple)
    """Weights with which training starts: one file, or a tuple of files for different parts of the objective.
    Parameters that no file gives start with fresh weights. Probes always compare the trained trunk with fresh weights
    of the same seed."""
    branch: Branch | None = None
    """Another run of the study that this one continues, for example with a cooldown."""
    frozen: tuple[str, ...] = ()
    """Parameters that are not trained: names of modules or parameters of the objective, such as ``"trunk"`` or
    ``"trunk.blocks.0"``, in which ``*`` matches any text. A module includes everything below it."""

    def __attrs_post_init__(self) -> None:
        """Replace a trunk that names a file by the plain trunk and initial weights, then check all fields."""
        found = self.trunk.pretrained() if isinstance(self.trunk, Trunk) else None
        if found is not None:
            others = self.initial_weights if isinstance(self.initial_weights, tuple) else (self.initial_weights,)
            weights = Weights(url=found.url, sha256=found.sha256, resize=found.resize, fresh=found.fresh)
            joined = (weights, *(one for one in others if one is not None))
            # Frozen attrs classes set fields like this while they are initialized.
            object.__setattr__(self, "trunk", found.trunk)
            object.__setattr__(self, "initial_weights", _without_needless_tuple(joined))
        super().__attrs_post_init__()

    def problems(self) -> Iterable[Problem]:
        """Yield parts that are not compatible: capabilities, grids, batch sizes."""
        yield from name_problems("name", self.name)
        yield from at_least("num_steps", self.num_steps, 0, self._most_steps)
        if self.num_steps and not self.objective.has_losses:
            name = self.objective.name
            hint = f"'aimcore describe objectives/{name}' lists its settings"
            yield Problem("num_steps", f"must be 0 with objective {name!r}, which has no losses as it is set: {hint}")
        yield from at_least("log_every", self.log_every, 1, limits.STEPS)
        yield from at_least("seed", self.seed, 0)
        if self.checkpoint_every is not None:
            yield from at_least("checkpoint_every", self.checkpoint_every, 1, limits.STEPS)
        if self.validate_every is not None:
            yield from at_least("validate_every", self.validate_every, 1, limits.STEPS)
        for path, message in self.schedule.problems_in(self.num_steps, self.optimizer.peak_lr):
            yield Problem(f"schedule.{path}", message)
        if self.data.native is None and self.data.batch_size % self.engine.accumulation_steps:
            yield Problem("engine.accumulation_steps", f"must divide data.batch_size ({self.data.batch_size})")
        yield from self._initialization_problems()
        yield from self._score_problems()
        yield from self._misfits()

    @property
    def weights_by_path(self) -> Mapping[str, Weights]:
        """The initial weights, one entry per file: ``initial_weights`` alone, or ``initial_weights.0`` and so on."""
        weights = self.initial_weights
        if weights is None:
            return {}
        if isinstance(weights, Weights):
            return {"initial_weights": weights}
        return {f"initial_weights.{number}": one for number, one in enumerate(weights)}

    @property
    def is_validated(self) -> bool:
        """Whether its losses are measured at the end: it trains, or all weights of its objective are given."""
        are_given = any(one.part == WHOLE and not one.fresh for one in self.weights_by_path.values())
        return self.objective.has_losses and (self.num_steps > 0 or are_given)

    @property
    def _most_steps(self) -> int:
        return limits.STEPS if self.data.native is None else limits.NATIVE_STEPS

    def _initialization_problems(self) -> Iterable[Problem]:
        yield from overlap_problems(self.weights_by_path)
        if self.branch is None:
            return
        if self.initial_weights is not None:
            yield Problem("branch", "cannot be combined with initial_weights: a run begins with one of them")
        if self.branch.step >= self.num_steps:
            yield Problem(
                "branch.step",
                f"must be below num_steps ({self.num_steps}), which counts the steps before the branch too; got "
                f"{self.branch.step}",
            )
        if self.branch.experiment == self.name:
            yield Problem("branch.experiment", "must be another experiment than this one")

    def _score_problems(self) -> Iterable[Problem]:
        """Yield duplicate names of probes and titles of evaluations, and probes of tokens that do not exist."""
        yield from extra_token_problems(self.trunk, self.probes)
        for place, number in enumerate(self.probe_labels_per_class):
            yield from at_least(f"probe_labels_per_class.{place}", number, 2, limits.IMAGES)
        if len(set(self.probe_labels_per_class)) < len(self.probe_labels_per_class):
            yield Problem("probe_labels_per_class", f"must be distinct, got {self.probe_labels_per_class}")
        yield from at_least("probe_label_draws", self.probe_label_draws, 1, limits.DRAWS)
        names = [probe.name for probe in self.probes]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield Problem("probes", f"two probes are called {name!r}: scores are kept by name, so use one of each")
        if self.probe_every_layer:
            yield from every_layer_problems(self.probes)
        yield from augmentation_problems(self.data, self.probes, self.probe_native_area)
        titles = [evaluation.title for evaluation in self.evaluations]
        for number, title in enumerate(titles):
            if title in titles[:number]:
                yield Problem(
                    f"evaluations.{number}", f"two evaluations are called {title!r}: scores are kept by that name"
                )

    def _misfits(self) -> Iterable[Problem]:
        yield from capability_problems(self.objective, self.trunk)
        if self.probes and self.probe_attention == "causal" and "causal" not in self.trunk.capabilities:
            yield Problem("probe_attention", f"trunk {self.trunk.name!r} cannot attend causally")
        if self.engine.accumulation_steps > 1 and not self.objective.is_separable:
            yield Problem(
                "engine.accumulation_steps",
                f"must be 1: {self.objective.name!r} uses the samples of a batch together, and micro-batches would "
                "change its loss; use more processes instead",
            )
        if self.engine.zero_stage and not self.optimizer.elementwise:
            yield Problem(
                "engine.zero_stage",
                f"must be 0 with optimizer {self.optimizer.name!r}, whose updates may depend on the shapes of "
                f"parameters: at stage {self.engine.zero_stage} it would see parts of flat vectors (if each number is "
                "updated by itself, set elementwise = True in its class)",
            )
        yield from self._size_problems()

    def _size_problems(self) -> Iterable[Problem]:
        native, accumulation_steps = self.data.native, self.engine.accumulation_steps
        yield from view_problems(self.objective)
        yield from training_size_problems(self.data, self.trunk, self.objective)
        yield from native_size_problems(self.data, self.trunk, self.objective)
        if native is not None and native.images_multiple_of % accumulation_steps:
            multiple = native.images_multiple_of
            yield Problem("engine.accumulation_steps", f"must divide data.native.images_multiple_of ({multiple})")
        yield from probe_size_problems(
            self.data,
            self.trunk,
            self.probes,
            image_sizes=self.probe_image_sizes,
            native_area=self.probe_native_area,
        )
