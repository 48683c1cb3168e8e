"""One optimiser step at any ZeRO stage, on any number of ranks, in any number of micro-batches: the same update."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import attrs
import torch
from torch import Tensor, nn
from torch._tensor_str import printoptions

from aimcore.contracts.assembly import checked_counts, require_names
from aimcore.contracts.batches import Batch
from aimcore.contracts.errors import InvalidValue
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.contracts.randomness import seed_torch
from aimcore.contracts.results import Loss
from aimcore.engine.checkpoint_checks import DamageReport
from aimcore.engine.deepspeed_config import deepspeed_config
from aimcore.engine.deepspeed_library import forget_modules, load_deepspeed
from aimcore.engine.distributed import add_over_ranks, on_every_rank, start
from aimcore.engine.engine_errors import CheckpointDamaged, TrainingDiverged
from aimcore.engine.host_memory import give_back_freed_memory
from aimcore.engine.layout_change import give_masters, give_state, trained_names
from aimcore.engine.manifest import Manifest
from aimcore.engine.module_building import InPrecision, build_module, initial_module, seed_of
from aimcore.engine.parameter_groups import torch_optimizer
from aimcore.engine.peak_memory import peak_memory, restart_peak
from aimcore.engine.pickling import pickle_stages_by_value
from aimcore.engine.recomputation import recompute_activations
from aimcore.engine.saved_state import saved_state
from aimcore.engine.shards import epilogue_deferred, loads_naming_files, writes_deferring_errors
from aimcore.engine.stage3_linear import round_once
from aimcore.engine.whole_weights import buffers_kept_as_they_are, call_after_step, whole
from aimcore.experiment import Experiment


@attrs.frozen
class StepResult:
    """The results of one step, over all ranks and micro-batches."""

    losses: Mapping[str, float]
    """Global sum / global number of targets per loss, before weighting. A loss without targets is absent."""
    num_targets: Mapping[str, int]
    num_patches: int
    """Number of patches of the step, including padding."""
    num_images: int
    padding_share: float
    """Fraction of the patches' values that are padding, masked or part of the images."""
    gradient_norm: float
    """Norm of the global gradient before clipping."""
    learning_rate: float
    interrupted: bool
    """Whether any rank was interrupted."""
    peak_memory: int = 0
    """Peak memory since the engine started, in bytes, of the rank with the largest: see
    :func:`aimcore.engine.peak_memory.peak_memory`."""


class TrainingEngine:
    """Trains the objective module of an experiment with DeepSpeed ZeRO; one per experiment and process.

    ``module`` is the objective module itself and can be evaluated at any time. At stage 3 its parameters are gathered
    around each forward, so all ranks must run the same number of forwards.

    A loss enters the total as weight * global sum / global count. DeepSpeed averages gradients over ranks and
    micro-batches, so each micro-batch's share is scaled up by both first.
    """

    def __init__(self, experiment: Experiment, module: ObjectiveModule | None = None) -> None:
        self.experiment = experiment
        self.world = start(experiment.engine.num_threads)
        self.step_number = 0
        """Number of updates so far."""
        self._linear = nn.functional.linear
        restart_peak(self.world.device)
        objective = module or on_every_rank(lambda: initial_module(experiment))
        recompute_activations(objective, experiment)
        trained = InPrecision(objective, experiment.engine.precision)
        optimizer = torch_optimizer(objective, experiment.optimizer)
        self._trained = trained_names(objective, optimizer)
        self._engine: Any = self._initialize(trained, optimizer)
        self.module = objective
        self._require_groups(optimizer)

    def _initialize(self, trained: InPrecision, optimizer: torch.optim.Optimizer) -> Any:
        settings = self.experiment
        num_parameters = sum(parameter.numel() for parameter in trained.parameters())
        config = deepspeed_config(settings, world_size=self.world.size, num_parameters=num_parameters)
        trained.to(self.world.device)
        # DeepSpeed rounds the module itself to bfloat16.
        masters = (
            {each: each.detach().to("cpu", copy=True) for each in trained.parameters() if each.requires_grad}
            if settings.engine.precision == "bf16"
            else {}
        )
        # At stage 3 DeepSpeed formats every weight for a message that it does not show.
        with buffers_kept_as_they_are(trained), printoptions(threshold=0, edgeitems=1):
            engine, *_ = load_deepspeed().initialize(
                model=trained, optimizer=optimizer, config=config, dist_init_required=False
            )
        round_once(self._linear)
        give_masters(engine, masters, settings.engine.zero_stage, self.world.rank)
        if self.world.size == 1 and settings.engine.zero_stage == 0:
            # A single process has nothing to average; DeepSpeed would copy the whole gradient twice.
            engine.enable_backward_allreduce = False
        return engine

    def _require_groups(self, built: torch.optim.Optimizer) -> None:
        """Refuse an optimizer that DeepSpeed has replaced by one without its groups, as it does with Adagrad."""
        groups = self._engine.optimizer.param_groups
        if len(groups) == len(built.param_groups) and all("peak_lr" in group for group in groups):
            return
        self.close()
        stage = self.experiment.engine.zero_stage
        problem = f"must be 0: at stage {stage} DeepSpeed makes {type(built).__name__} anew, without its groups"
        raise InvalidValue(f"Experiment {self.experiment.name!r}", [("engine.zero_stage", problem)])

    def step(self, micro_batches: Sequence[Batch], interrupted: Callable[[], bool] = lambda: False) -> StepResult:
        """Make one update from this rank's micro-batches of the step.

        Randomness inside the modules is seeded by (seed, step, rank), so that a resumed run draws the same.

        Args:
            micro_batches: as many batches as the experiment has accumulation steps.
            interrupted: called at the end of the step; the result says whether any rank was interrupted.

        Raises:
            TrainingDiverged: a loss or the gradient is not finite; the update was not applied.
            BrokenContract: the module does not return losses, or returns other losses than it counts.
        """
        if len(micro_batches) != self.experiment.engine.accumulation_steps:
            raise ValueError(
                f"a step has {self.experiment.engine.accumulation_steps} micro-batches, got {len(micro_batches)}"
            )
        seed_torch(seed_of(self.experiment.seed, f"step on rank {self.world.rank}", self.step_number))
        self._engine.train()
        rate = self._set_learning_rate()
        batches = [batch.to(self.world.device) for batch in micro_batches]
        counts, sizes = self._count(batches)
        sums, norm, (stop, peak) = self._run(batches, counts, interrupted)
        losses = {name: sums[name] / count for name, count in counts.items() if count}
        norm = self._update(losses, norm)
        self.step_number += 1
        call_after_step(self.module, self.experiment, self.step_number)
        return StepResult(losses, counts, *sizes, norm, rate, stop, peak)

    def _set_learning_rate(self) -> float:
        """Set the learning rate of every group for this step; return the rate before multipliers."""
        experiment, peak_lr = self.experiment, self.experiment.optimizer.peak_lr
        rate = experiment.schedule.rate(self.step_number, num_steps=experiment.num_steps, peak_lr=peak_lr)
        for group in self._engine.optimizer.param_groups:
            group["lr"] = rate * (group["peak_lr"] / peak_lr)
        return rate

    def _count(self, batches: Sequence[Batch]) -> tuple[dict[str, int], tuple[int, int, float]]:
        """Return the number of targets per loss of the whole step, its patches, images and fraction of padding."""
        local = [checked_counts(self.module, self.module.counts(batch)) for batch in batches]
        names = list(local[0])
        images = [batch.images for batch in batches]
        patches = [each.patches_BNF.shape[0] * each.patches_BNF.shape[1] for each in images]
        padding = sum(number * each.padding_share for number, each in zip(patches, images, strict=True))
        sizes = [sum(patches), sum(len(each.grids) for each in images), padding]
        numbers = [*(sum(counts[name] for counts in local) for name in names), *sizes]
        *totals, num_patches, num_images, padding = add_over_ranks(torch.tensor(numbers, dtype=torch.float64)).tolist()
        counts = {name: int(total) for name, total in zip(names, totals, strict=True)}
        return counts, (int(num_patches), int(num_images), padding / num_patches)

    def _run(
        self, batches: Sequence[Batch], counts: Mapping[str, int], interrupted: Callable[[], bool]
    ) -> tuple[dict[str, float], float | None, tuple[bool, int]]:
        """Run forward and backward, and clip the gradient at stage 0.

        Return the global sum of each loss, the norm at stage 0, whether any rank was interrupted, and the peak memory.
        """
        sums = torch.zeros(len(counts), dtype=torch.float64, device=self.world.device)
        for index, batch in enumerate(batches):
            losses: dict[str, Loss] = self._engine(batch)
            require_names(self.module, losses, counts)
            self._engine.backward(_total(losses, counts) * self.world.size * len(batches))
            sums += torch.stack([losses[name].sum.detach().double() for name in counts])
            if index < len(batches) - 1:
                self._engine.step()  # no update yet: DeepSpeed counts micro-batches here
        norms = self._clip().reshape(1).to(sums) if self.experiment.engine.zero_stage == 0 else sums.new_empty(0)
        # The process waits for a GPU here only: the kernels of clipping are queued while backward still runs.
        own, norms = torch.cat([sums, norms]).cpu().tensor_split([len(counts)])
        flag = torch.tensor([float(interrupted())], dtype=torch.float64)
        # One collective for everything: each rank adds its peak in a place of its own.
        peaks = torch.zeros(self.world.size, dtype=torch.float64)
        peaks[self.world.rank] = peak_memory(self.world.device)
        totals = add_over_ranks(torch.cat([own, flag, peaks]))
        *losses_of_all, stop = totals[: -self.world.size].tolist()
        of_ranks = stop > 0, int(totals[-self.world.size :].max())
        return dict(zip(counts, losses_of_all, strict=True)), float(norms) if len(norms) else None, of_ranks

    def _update(self, losses: Mapping[str, float], norm: float | None) -> float:
        """Apply the gradient, unless a value is not finite; return its norm before clipping.

        At stage 0 the gradient is clipped already, and ``norm`` is known; at other stages DeepSpeed clips here.
        """
        if not all(math.isfinite(value) for value in losses.values()):
            raise TrainingDiverged(self.step_number, losses, None)
        if norm is None or math.isfinite(norm):
            self._engine.step()  # DeepSpeed skips the update when its norm is not finite
        if norm is None:
            norm = float(self._engine.get_global_grad_norm())
        if not math.isfinite(norm) or norm < 0:
            raise TrainingDiverged(self.step_number, losses, norm)
        return norm

    def _clip(self) -> Tensor:
        """Clip the gradient; return its norm before that, which may still be computed by the device."""
        limit = self.experiment.optimizer.gradient_clipping
        parameters = [parameter for parameter in self.module.parameters() if parameter.grad is not None]
        return nn.utils.clip_grad_norm_(parameters, math.inf if limit is None else limit)

    def whole_module(self) -> ObjectiveModule:
        """Return the module with all its parameters: itself, or at ZeRO stage 3 a copy that is not partitioned.

        Evaluations use parameters outside of the module's forward, for example to generate captions, and stage 3
        gathers them only within it. The copy is float32 at any training precision, and needs additional memory. Every
        rank must call this.
        """
        if self.experiment.engine.zero_stage < 3:
            return self.module
        module = build_module(self.experiment)
        module.load_state_dict(self.full_state_dict())
        return module.to(self.world.device)

    def full_state_dict(self) -> dict[str, Tensor]:
        """Return copies of the objective module's weights and buffers: whole, on the CPU, floats as float32.

        With precision "bf16" these are the float32 master weights. Every rank must call this, and gets all of them.
        """
        state = self.module.state_dict(keep_vars=True)
        return {name: whole(value, self.experiment.engine).cpu().clone() for name, value in state.items()}

    def save_shards(self, folder: Path, tag: str) -> None:
        """Write DeepSpeed's files into ``folder/tag``. :mod:`aimcore.engine.checkpoints` makes this atomic."""
        pickle_stages_by_value()
        with writes_deferring_errors(self._engine) as writes:
            self._engine.save_checkpoint(str(folder), tag=tag, client_state={}, save_latest=False)
        on_every_rank(writes.raise_error)

    def load_shards(self, folder: Path, tag: str, step: int) -> None:
        """Load the files of :meth:`save_shards` after ``step`` updates. DeepSpeed unpickles them: verify them first.

        Raises:
            CheckpointDamaged: some rank cannot load it (raised on every rank).
        """
        with epilogue_deferred(self._engine.optimizer) as epilogue:
            on_every_rank(lambda: self._load(folder, tag, step))
        epilogue()
        self.step_number = step

    def load_other_layout(self, checkpoint: Path, manifest: Manifest) -> None:
        """Load a verified checkpoint of another ZeRO stage or number of processes.

        Raises:
            CheckpointDamaged: some rank cannot load it (raised on every rank).
        """

        def give() -> None:
            with DamageReport(checkpoint, checkpoint):
                saved = saved_state(checkpoint, manifest, self._trained)
                give_state(self._engine, self.module, saved, self.experiment.engine.zero_stage, self.world.rank)

        on_every_rank(give)
        self._engine.global_steps = self.step_number = manifest.step
        self._engine.global_samples = manifest.step * self._engine.train_batch_size()

    def _load(self, folder: Path, tag: str, step: int) -> None:
        checkpoint = folder / tag
        with DamageReport(checkpoint, checkpoint), loads_naming_files(self._engine, checkpoint):
            loaded, _ = self._engine.load_checkpoint(str(folder), tag=tag)
        found = self._engine.global_steps
        if loaded is None or found != step:
            problem = f"gives a state of step {found}, and the manifest says {step}" if loaded else "was not found"
            raise CheckpointDamaged(str(checkpoint), problem, str(checkpoint))

    def close(self) -> None:
        """Free DeepSpeed's buffers; the engine cannot be used afterwards."""
        if self._engine is not None:
            self._engine.destroy()
            self._engine = None
            forget_modules()
            give_back_freed_memory()
            # Stage 3 replaces torch's function for the whole process, and autocast rounds differently in DeepSpeed's:
            # the losses of later runs would depend on this one.
            nn.functional.linear = self._linear

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def _total(losses: Mapping[str, Loss], counts: Mapping[str, int]) -> Tensor:
    """Return the sum of weight * sum / global count; a loss without targets adds nothing."""
    shares = [
        loss.sum * (loss.weight / counts[name]) if counts[name] else loss.sum * 0.0 for name, loss in losses.items()
    ]
    return torch.stack(shares).sum()
