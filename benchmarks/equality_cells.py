"""The cells of ``equality.py``: objectives, variants, ZeRO stages, precisions and numbers of processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any, ClassVar, Literal

import attrs
import torch

from aimcore import (
    Batch,
    Data,
    Engine,
    Experiment,
    Loss,
    Objective,
    PatchGrid,
    Reading,
    Schedule,
    Text,
    TrunkModule,
    component,
)
from aimcore.contracts.images import Images
from aimcore.contracts.optimizers import Optimizer, ParameterGroup
from aimcore.modeling.layers import frozen_copy, move_average
from aimcore.testing.small_parts import StandInSource
from aimcore_decoders import JointDecoder
from aimcore_heads import MLPHead
from aimcore_objectives import Contrastive, Multimodal, NextPatch
from aimcore_objectives.multimodal import MultimodalModule
from aimcore_objectives.next_patch import NextPatchModule
from aimcore_objectives.towers import TextTower
from aimcore_optimizers import AdamW
from aimcore_tokenizers import GivenIds
from aimcore_trunks import LoRA, ViT

NUM_STEPS, NUM_IMAGES, PATCH, SIDE = 4, 8, 4, 3
STAGES = (0, 1, 2, 3)
PRECISIONS = ("fp32", "autocast", "bf16")
PROCESSES = (1, 2, 4)
OBJECTIVES = ("aim", "aimv2")
COVERED = (
    ("variant", "processes"),
    ("stage", "precision"),
    ("stage", "processes"),
    ("objective", "stage"),
    ("objective", "precision"),
)
"""Pairs of settings of which :func:`covering` returns all combinations."""
ADAM = AdamW(peak_lr=1e-2, weight_decay=0.1, gradient_clipping=None, eps=1e-3)
"""Large steps and decay, so that a wrong update shows. With a large epsilon, a gradient that is zero but for rounding,
which Adam would divide by itself, moves nothing."""
LAYER_DECAY, HEAD_RATE, MOMENTUM = 0.5, 0.25, 0.7
TRUNK = ViT(width=16, depth=2, num_heads=2, patch_size=PATCH)
TOKENS, CONTEXT = GivenIds(size=24, end=1), 6


@attrs.frozen(order=True)
class Cell:
    """One comparison."""

    objective: str
    variant: str
    precision: Literal["fp32", "autocast", "bf16"]
    stage: Literal[0, 1, 2, 3]
    processes: int


@attrs.frozen
class Variant:
    """A change of an experiment."""

    change: Callable[[Experiment], Experiment]


class _AveragedModule:
    """Adds an average of the trunk, and a loss that moves the trunk's tokens towards those of the average."""

    def __init__(self, config: Any, trunk: TrunkModule) -> None:
        super().__init__(config, trunk)  # type: ignore[call-arg]
        self.average = frozen_copy(self.trunk)  # type: ignore[attr-defined]

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Return also the number of patches."""
        found: Mapping[str, int] = super().counts(batch)  # type: ignore[misc]
        return {**found, "average": batch.images.patches_BNF.shape[:2].numel()}

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """Return also the loss of the average."""
        found: dict[str, Loss] = super().forward(batch)  # type: ignore[misc]
        tokens_BND = self.trunk(batch.images, Reading()).tokens_BND.float()  # type: ignore[attr-defined]
        wanted_BND = self.average(batch.images, Reading()).tokens_BND.float()
        total = (tokens_BND - wanted_BND.detach()).square().mean(-1).sum()
        return {**found, "average": Loss(total, torch.tensor(tokens_BND.shape[:2].numel()))}

    def after_step(self, step: int, num_steps: int) -> None:
        """Move the average."""
        move_average(self.average, self.trunk, MOMENTUM)  # type: ignore[attr-defined]


class AveragedNextPatchModule(_AveragedModule, NextPatchModule):
    """AIM's objective with an average."""


class AveragedMultimodalModule(_AveragedModule, MultimodalModule):
    """AIMv2's objective with an average."""


@component("averaged_next_patch")
class AveragedNextPatch(NextPatch):
    """AIM's objective with an average."""

    def build(self, trunk: TrunkModule) -> NextPatchModule:
        """Build the module with an average."""
        return AveragedNextPatchModule(self, trunk)


@component("averaged_multimodal")
class AveragedMultimodal(Multimodal):
    """AIMv2's objective with an average."""

    def build(self, trunk: TrunkModule) -> MultimodalModule:
        """Build the module with an average."""
        return AveragedMultimodalModule(self, trunk)


@component("slow_next_patch")
class SlowNextPatch(NextPatch):
    """AIM's objective with a slow head."""

    def build(self, trunk: TrunkModule) -> NextPatchModule:
        """Build the module with multipliers."""
        return _slow(super().build(trunk), "head")


@component("slow_multimodal")
class SlowMultimodal(Multimodal):
    """AIMv2's objective with a slow decoder."""

    def build(self, trunk: TrunkModule) -> MultimodalModule:
        """Build the module with multipliers."""
        return _slow(super().build(trunk), "decoder")


def _slow(module: Any, part: str) -> Any:
    module.rate_multipliers = {part: HEAD_RATE}
    return module


def _as(experiment: Experiment, aim: type[NextPatch], aimv2: type[Multimodal]) -> Experiment:
    """Return the experiment with its objective as one of another class with the same fields."""
    objective = experiment.objective
    kind = aim if isinstance(objective, NextPatch) else aimv2
    values = {field.name: getattr(objective, field.name) for field in attrs.fields(type(objective))}
    return attrs.evolve(experiment, objective=kind(**values))


def _lit(experiment: Experiment) -> Experiment:
    tower = TextTower(width=16, depth=1, num_heads=2)
    objective = Contrastive(
        text_tower=tower, tokenizer=TOKENS, context_length=CONTEXT, embedding_width=8, num_pool_heads=2
    )
    return attrs.evolve(experiment, objective=objective, frozen=("trunk",))


def _with_optimizer(optimizer: Optimizer) -> Variant:
    return Variant(lambda run: attrs.evolve(run, optimizer=optimizer))


@component("momentum")
class Momentum(Optimizer):
    """Stochastic gradient descent with momentum: another algorithm of the role."""

    elementwise: ClassVar[bool] = True

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        """Build torch's SGD."""
        own = [{"params": list(group.parameters), "weight_decay": 0.1 * group.decays} for group in groups]
        return torch.optim.SGD(own, lr=self.peak_lr, momentum=0.9)


class _ByNorms(torch.optim.SGD):
    """Divides the gradient of a parameter by its norm."""

    def step(self, closure: Any = None) -> None:
        """Make one update."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad /= parameter.grad.norm() + 1e-3
        super().step(closure)


@component("by_norms")
class ByNorms(Momentum):
    """An algorithm that reads norms of parameters, as LAMB does: ZeRO's flat vectors have none."""

    elementwise: ClassVar[bool] = False

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        """Build the torch optimizer."""
        return _ByNorms([{"params": list(group.parameters)} for group in groups], lr=self.peak_lr, momentum=0.9)


def _engine(**changes: Any) -> Callable[[Experiment], Experiment]:
    return lambda run: attrs.evolve(run, engine=attrs.evolve(run.engine, **changes))


def _adam(**changes: Any) -> Callable[[Experiment], Experiment]:
    return lambda run: attrs.evolve(run, optimizer=attrs.evolve(ADAM, **changes))


def _offload(experiment: Experiment) -> Experiment:
    """Return the experiment with an offloaded optimizer, and what passes through its host memory: parts, clipping."""
    changed = _engine(offload_optimizer=True, accumulation_steps=2)(experiment)
    return attrs.evolve(changed, optimizer=attrs.evolve(ADAM, gradient_clipping=0.05))


def variants() -> dict[str, Variant]:
    """Return the variants by name, "plain" first."""
    return {
        "plain": Variant(lambda run: run),
        "accumulation": Variant(_engine(accumulation_steps=2)),
        "clipping": Variant(_adam(gradient_clipping=0.05)),
        "frozen trunk": Variant(lambda run: attrs.evolve(run, frozen=("trunk",))),
        "lit": Variant(_lit),
        "lora": Variant(lambda run: attrs.evolve(run, trunk=LoRA(trunk=run.trunk, rank=2))),
        "average": Variant(lambda run: _as(run, AveragedNextPatch, AveragedMultimodal)),
        "rates": Variant(lambda run: _as(run, SlowNextPatch, SlowMultimodal)),
        "layer decay": Variant(_adam(layer_decay=LAYER_DECAY)),
        "decoupled decay": Variant(_adam(decay="decoupled", layer_decay=LAYER_DECAY)),
        "offload": Variant(_offload),
        "momentum": _with_optimizer(Momentum(peak_lr=0.1)),
        "by norms": _with_optimizer(ByNorms(peak_lr=0.01)),
    }


def multipliers(variant: str, names: Sequence[str]) -> dict[str, float]:
    """Return the learning-rate multipliers of the parameters in ``names``, from the definition."""
    if variant == "rates":
        return {name: HEAD_RATE for name in names if name.startswith(("head.", "decoder."))}
    if "decay" not in variant:
        return {}
    found = {}
    for name in names:
        if name.startswith("trunk."):
            block = name.split(".")[2] if name.startswith("trunk.blocks.") else None
            layer = TRUNK.depth + 1 if name.startswith("trunk.norm.") else 0 if block is None else int(block) + 1
            found[name] = LAYER_DECAY ** (TRUNK.depth + 1 - layer)
    return found


def cells() -> list[Cell]:
    """Return all cells; AIM's objective has no captions, which LiT needs."""
    found = (Cell(*levels) for levels in product(OBJECTIVES, variants(), PRECISIONS, STAGES, PROCESSES))
    return [cell for cell in found if (cell.objective, cell.variant) != ("aim", "lit")]


def expected_refusal(cell: Cell) -> str:
    """Return a part of the message with which the settings of a cell must be refused; empty if they are allowed."""
    if cell.stage == 0 and cell.precision == "bf16":
        return "bf16 at ZeRO stage 0 trains silently wrong"
    if cell.stage == 0 and cell.variant == "offload":
        return "offload_optimizer: requires zero_stage 1 or more"
    if cell.stage and cell.variant == "by norms":
        return "must be 0 with optimizer 'by_norms'"
    return ""


def covering(whole: Sequence[Cell]) -> list[Cell]:
    """Return few cells: the pairs of settings in :data:`COVERED` that are possible, and one cell of each refusal."""
    refusals = {reason: cell for cell in whole if (reason := expected_refusal(cell))}
    pairs = {cell: _pairs(cell) for cell in whole if not expected_refusal(cell)}
    missing: set[Any] = set().union(*pairs.values())
    found, stages = list(refusals.values()), Counter[int]()
    while missing:
        # Of equally good cells, one of few processes, which takes less time, and of a stage with few cells so far.
        best = max(pairs, key=lambda cell: (len(pairs[cell] & missing), -cell.processes, -stages[cell.stage]))
        missing -= pairs[best]
        stages[best.stage] += 1
        found.append(best)
    return sorted(found)


def _pairs(cell: Cell) -> frozenset[Any]:
    return frozenset((names, tuple(getattr(cell, name) for name in names)) for names in COVERED)


def experiment_of(cell: Cell) -> Experiment:
    """Return the experiment of a cell."""
    source = StandInSource()
    run = Experiment(
        name="cell",
        data=Data(train=source, validation=source, batch_size=NUM_IMAGES, image_size=PATCH * SIDE),
        trunk=TRUNK if cell.objective == "aim" else attrs.evolve(TRUNK, norm="rms_norm", ffn="swiglu"),
        objective=_objective(cell.objective),
        num_steps=NUM_STEPS,
        optimizer=ADAM,
        schedule=Schedule(warmup_steps=2, warmup_lr=2e-4),
        engine=Engine(zero_stage=cell.stage, precision=cell.precision, num_threads=1),
    )
    return variants()[cell.variant].change(run)


def _objective(name: str) -> Objective:
    if name == "aim":
        return NextPatch(head=MLPHead(width=16, depth=1))
    decoder = JointDecoder(width=16, depth=1, num_heads=2)
    return Multimodal(decoder=decoder, tokenizer=TOKENS, context_length=CONTEXT)


def batch_of(objective: Objective, step: int) -> Batch:
    """Return the whole batch of a step: noise, and captions of different lengths."""
    generator = torch.Generator().manual_seed(step)
    patches_BNF = torch.randn(NUM_IMAGES, SIDE**2, PATCH**2 * 3, generator=generator)
    images = Images(patches_BNF=patches_BNF, grids=(PatchGrid(SIDE, SIDE),) * NUM_IMAGES, patch_size=PATCH)
    text = None
    if objective.text is not None:
        ids_BT = torch.randint(TOKENS.vocabulary_size, (NUM_IMAGES, CONTEXT), generator=generator)
        lengths_B1 = torch.randint(2, CONTEXT + 1, (NUM_IMAGES, 1), generator=generator)
        ids_BT[torch.arange(NUM_IMAGES), lengths_B1.squeeze(1) - 1] = 1
        text = Text(ids_BT=ids_BT, valid_BT=torch.arange(CONTEXT) < lengths_B1)
    return Batch(images=images, sample_numbers_B=torch.arange(NUM_IMAGES) + NUM_IMAGES * step, text=text)
