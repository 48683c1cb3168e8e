"""Experiments, and the settings they are made of: frozen values that check themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import attrs

from aimcore.component import Checked, Problem, at_least, settings, within
from aimcore.roles import Objective, Probe, Source, Tracker, Trunk

Scale = Literal["smoke", "small", "paper"]
SCALES: tuple[Scale, ...] = ("smoke", "small", "paper")
"""How large a study runs: seconds on any machine, minutes on two cores, or the paper's own size."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@settings
class Augmentation(Checked):
    """Training-time cropping and flipping; the defaults are arXiv:2401.08541, Table 10."""

    crop_scale: tuple[float, float] = (0.4, 1.0)
    """Share of the image's area that a crop covers."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Aspect ratio of a crop."""
    flip_probability: float = 0.5
    """Probability of a horizontal flip."""
    color_jitter: tuple[float, float, float, float] | None = None
    """Brightness, contrast, saturation and hue; the authors' configuration has (0.4, 0.4, 0.2, 0.1), Table 10 none."""
    color_jitter_probability: float = 0.8

    def problems(self) -> Iterable[Problem]:
        """Ranges must be ordered, probabilities lie in [0, 1]."""
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            yield Problem("crop_scale", f"must be two shares 0 < low <= high <= 1, got {self.crop_scale}")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            yield Problem("crop_ratio", f"must be two ratios 0 < low <= high, got {self.crop_ratio}")
        yield from within("flip_probability", self.flip_probability, 0, 1)
        yield from within("color_jitter_probability", self.color_jitter_probability, 0, 1)


@settings
class Data(Checked):
    """What a run reads, and how images become batches."""

    train: Source
    """Images to train on; with labels, also what probes train on."""
    validation: Source
    """Images never trained on: they give the validation loss, and are the probes' test set."""
    probe_train: Source | None = None
    """Labelled images that probes train on, where that is not ``train``."""
    probe_test: Source | None = None
    """Labelled images that probes are tested on, where that is not ``validation``."""
    batch_size: int
    """Samples per optimiser step, over all ranks and accumulation steps."""
    image_size: int = 224
    """Side of the square crop, in pixels."""
    augmentation: Augmentation = Augmentation()
    eval_crop: float = 0.875
    """Evaluation resizes the short side to ceil(image_size / eval_crop), bicubic, and crops the centre."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    caption_weights: Mapping[str, float] | None = None
    """How often each kind of caption is read in training, in any unit; kinds that are not named are never read. None
    reads every kind that a sample has equally often."""
    num_workers: int = 0
    """Data processes per rank; 0 loads in a thread of the training process."""
    max_unreadable: int = 100
    """A run stops when more images than this cannot be read."""

    def problems(self) -> Iterable[Problem]:
        """Counts must be positive, mean and std of one length."""
        yield from at_least("batch_size", self.batch_size, 1)
        yield from at_least("image_size", self.image_size, 1)
        yield from within("eval_crop", self.eval_crop, 0.01, 1)
        yield from at_least("num_workers", self.num_workers, 0)
        yield from at_least("max_unreadable", self.max_unreadable, 0)
        weights = {} if self.caption_weights is None else self.caption_weights
        if self.caption_weights is not None and not (all(v >= 0 for v in weights.values()) and any(weights.values())):
            yield Problem("caption_weights", f"must be null or weights of 0 and more, not all 0, got {dict(weights)}")
        if len(self.mean) != len(self.std) or not all(value > 0 for value in self.std):
            yield Problem("std", f"must be positive, one value per value of mean {self.mean}, got {self.std}")


@settings
class Optimizer(Checked):
    """AdamW with decay on matrices only (none on biases, norms, positions); defaults: arXiv:2401.08541, Table 10."""

    peak_lr: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    gradient_clipping: float | None = 1.0
    """Largest global gradient norm; None does not clip."""

    def problems(self) -> Iterable[Problem]:
        """Rates must be positive, betas in [0, 1)."""
        if not self.peak_lr > 0:
            yield Problem("peak_lr", f"must be positive, got {self.peak_lr}")
        yield from at_least("weight_decay", self.weight_decay, 0)
        if not all(0 <= beta < 1 for beta in self.betas):
            yield Problem("betas", f"must lie in [0, 1), got {self.betas}")
        if self.gradient_clipping is not None and not self.gradient_clipping > 0:
            yield Problem("gradient_clipping", f"must be positive or null, got {self.gradient_clipping}")


@settings
class Schedule(Checked):
    """Linear warm-up, then a cosine to the final rate."""

    warmup_steps: int = 0
    warmup_lr: float = 1e-6
    """Rate at the first warm-up step."""
    final_lr: float = 0.0

    def problems(self) -> Iterable[Problem]:
        """Steps and rates cannot be negative."""
        yield from at_least("warmup_steps", self.warmup_steps, 0)
        yield from at_least("warmup_lr", self.warmup_lr, 0)
        yield from at_least("final_lr", self.final_lr, 0)


Precision = Literal["fp32", "bf16", "autocast"]


@settings
class Engine(Checked):
    """How the training engine (DeepSpeed ZeRO) runs."""

    zero_stage: Literal[0, 1, 2, 3] = 0
    """What is partitioned over ranks: 0 nothing, 1 optimiser state, 2 also gradients, 3 also parameters."""
    precision: Precision = "autocast"
    """fp32; bf16 (bfloat16 weights with float32 masters); autocast (float32 weights, bfloat16 products)."""
    accumulation_steps: int = 1
    """Micro-batches per step; the batch size stays the same, and so does the update."""
    num_threads: int | None = None
    """CPU threads per process; by default the machine's cores shared among its processes."""

    def problems(self) -> Iterable[Problem]:
        """Refuse what trains silently wrong."""
        yield from at_least("accumulation_steps", self.accumulation_steps, 1)
        if self.num_threads is not None:
            yield from at_least("num_threads", self.num_threads, 1)
        if self.zero_stage == 0 and self.precision == "bf16":
            yield Problem(
                "precision", "bf16 at ZeRO stage 0 trains silently wrong: use zero_stage 1 or more, or autocast"
            )


@settings
class Weights(Checked):
    """Fitted weights in a file, for a run to begin with."""

    url: str
    """A safetensors file, by its path or fsspec URL: a run's ``model.safetensors``, or weights in a layout that the
    trunk converts, such as those of a released encoder."""
    sha256: str | None = None
    """Hash of the file: one with another is refused. A run that is given none writes the one it finds in its recipe."""
    part: Literal["trunk", "all"] = "trunk"
    """What is taken from the file: the trunk alone, or the whole objective."""
    fresh: tuple[str, ...] = ()
    """Names, as in ``Experiment.frozen`` but within the part, that begin with fresh weights, whether or not the file
    has them. All others must be there, and no others may be."""

    def problems(self) -> Iterable[Problem]:
        """A file is needed, and a hash is one."""
        if not self.url:
            yield Problem("url", "must name a safetensors file, got ''")
        if self.sha256 is not None and (len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef")):
            yield Problem("sha256", f"must be 64 hexadecimal digits in lower case, got {self.sha256!r}")


@settings
class Experiment(Checked):
    """One run: everything that determines its numbers."""

    name: str
    data: Data
    trunk: Trunk
    objective: Objective
    num_steps: int
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    engine: Engine = Engine()
    probes: tuple[Probe, ...] = ()
    probe_attention: Literal["bidirectional", "causal"] = "bidirectional"
    """Attention of the frozen trunk while it is probed (arXiv:2401.08541, Table 3d)."""
    trackers: tuple[Tracker, ...] = ()
    checkpoint_every: int | None = None
    """Steps between checkpoints; None saves at the end and on interruption only."""
    log_every: int = 1
    """Steps between lines of ``metrics.jsonl``."""
    seed: int = 0
    initial_weights: Weights | None = None
    """What training begins with; None draws fresh weights. Probes compare the trained trunk with fresh weights of the
    same seed, whatever training began with."""
    frozen: tuple[str, ...] = ()
    """Parameters that are not trained: names of modules or parameters of the objective, such as ``"trunk"`` or
    ``"trunk.blocks.0"``, in which ``*`` stands for anything. What lies below a module belongs to it."""

    def problems(self) -> Iterable[Problem]:
        """The parts must fit each other: abilities, grid, batch size."""
        if not self.name or set(self.name) - _NAME_CHARACTERS:
            yield Problem("name", f"must be letters, digits, '-', '_' or '.', got {self.name!r}")
        if self.name == "report":
            yield Problem("name", "'report' is taken: the study's figures go into a folder of that name")
        yield from at_least("num_steps", self.num_steps, 1)
        yield from at_least("log_every", self.log_every, 1)
        if self.checkpoint_every is not None:
            yield from at_least("checkpoint_every", self.checkpoint_every, 1)
        if self.schedule.warmup_steps >= self.num_steps > 0:
            yield Problem("schedule.warmup_steps", f"must be below num_steps ({self.num_steps})")
        if self.data.batch_size % self.engine.accumulation_steps:
            yield Problem("engine.accumulation_steps", f"must divide data.batch_size ({self.data.batch_size})")
        yield from self._misfits()

    def _misfits(self) -> Iterable[Problem]:
        missing = self.objective.needs - self.trunk.can
        if missing:
            yield Problem(
                "objective",
                f"{self.objective.name!r} needs a trunk that can {sorted(missing)}; "
                f"{self.trunk.name!r} can {sorted(self.trunk.can)}",
            )
        if self.engine.accumulation_steps > 1 and not self.objective.is_separable:
            yield Problem(
                "engine.accumulation_steps",
                f"must be 1: {self.objective.name!r} contrasts the samples of a batch, and micro-batches would be "
                "smaller contrasts; use more processes instead",
            )
        if self.probes and self.probe_attention == "causal" and "causal" not in self.trunk.can:
            yield Problem("probe_attention", f"trunk {self.trunk.name!r} cannot attend causally")
        size, patch = self.data.image_size, self.trunk.patch_size
        if size % patch:
            yield Problem("data.image_size", f"must be a multiple of the trunk's patch size {patch}, got {size}")
            return
        from aimcore.values import PatchGrid  # here, because it loads torch

        grid = PatchGrid(size // patch, size // patch)
        yield from (Problem("trunk", text) for text in self.trunk.problems_with(grid))
        yield from (Problem("objective", text) for text in self.objective.problems_with(grid))


_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


@settings
class Study(Checked):
    """Experiments that belong together, usually one table or figure of a paper."""

    name: str
    experiments: Sequence[Experiment] = attrs.field(converter=tuple)
    source: str = ""
    """Where the comparison comes from, e.g. ``"arXiv:2401.08541, Table 3b"``."""
    paper: Mapping[str, Mapping[str, float]] = attrs.field(factory=dict)
    """The paper's scores (fractions) per experiment name and probe name."""

    def problems(self) -> Iterable[Problem]:
        """Names must be unique, and the paper's rows must belong to experiments."""
        names = [experiment.name for experiment in self.experiments]
        if not names:
            yield Problem("experiments", "a study needs at least one experiment")
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield Problem("experiments", f"two experiments are called {name!r}")
        for name in sorted(set(self.paper) - set(names)):
            yield Problem("paper", f"no experiment is called {name!r}; there are {names}")
