"""Checks of objectives: sums and counts add up over any split of a batch, and no prediction reads its own target."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs
import torch
from torch import Tensor

from aimcore.contracts.assembly import assembled
from aimcore.contracts.batches import Batch
from aimcore.contracts.objectives import Objective, ObjectiveModule
from aimcore.testing.cases import Case
from aimcore.testing.causality import doubts_of, leaks_of
from aimcore.testing.checks import Check, modules, states
from aimcore.testing.checks.skills import check_it_has_its_skills
from aimcore.testing.fixtures import GRID, batch_for, copy_of, on_meta, part_of, random_images, some_grids
from aimcore.testing.instrumented import InstrumentedObjective
from aimcore.testing.loss_invariants import mixed_images_of, wrong_counts_of, wrong_sums_of
from aimcore.testing.requirements import explained, require, require_names, seeded, shape_of
from aimcore.testing.short_training import trains_alike_at_stages_0_and_3
from aimcore.testing.small_parts import ALL_CAPABILITIES, MergingTrunk, StandInTrunk

_RELATIVE = 1e-9


def check_its_requirements_are_known(objective: Objective) -> None:
    """``requires`` is a frozenset of capabilities: those of the core, or a plugin's own with distinct names."""
    require_names("requires", objective.requires, ALL_CAPABILITIES, "the capabilities")


def check_counts_are_known_before_any_forward(objective: Objective) -> None:
    """``counts(batch)`` gives every loss's ``num_targets``, in training and evaluation."""
    _require_none(objective, wrong_counts_of)


def check_losses_per_step_add_up(objective: Objective) -> None:
    """``per_position_BN``, where it is given, adds up to ``sum`` and ``num_targets``."""
    _require_none(objective, wrong_sums_of)


def check_nothing_scored_reads_its_own_answer(objective: Objective) -> None:
    """No prediction depends on its own target or, if autoregressive, a later one: by gradients and perturbation."""
    _require_none(objective, lambda instrumented: (doubt.text for doubt in doubts_of(instrumented) if doubt.is_fault))
    _require_none(objective, leaks_of)


def check_images_do_not_mix(objective: Objective) -> None:
    """Losses per step of an image do not depend on other images."""
    _require_none(objective, mixed_images_of)


def check_a_batch_is_the_sum_of_its_parts(objective: Objective) -> None:
    """Sums and counts of a batch are those of its halves together, so that ranks and micro-batches add up."""
    if not objective.is_separable:
        return
    instrumented = _instrumented(objective)
    batch = batch_for(objective, random_images(number=4))
    for mode in instrumented.in_both_modes():
        whole, *halves = (_sums(instrumented, part) for part in (batch, part_of(batch, 0, 2), part_of(batch, 2, 4)))
        for name, (total, number) in whole.items():
            added, counted = (sum(half[name][i] for half in halves) for i in (0, 1))
            require(
                abs(total - added) <= _RELATIVE * abs(total) and number == counted,
                f"{mode}: loss {name!r} of 4 images is {total:.6g} over {number} targets, and its halves together give "
                f"{added:.6g} (a difference of {abs(added - total):.1g}) over {counted}: give sums, not means, draw by "
                "sample number, and keep the dtype of the trunk's tokens (the check computes in float64)",
            )


def check_randomness_belongs_to_the_sample(objective: Objective) -> None:
    """Training draws only from (seed, sample number), so that a resumed run continues as without an interruption."""
    instrumented = _instrumented(objective)
    instrumented.module.train()
    _require_alike(
        _sums_under(instrumented, instrumented.batch, seed=1),
        _sums_under(instrumented, instrumented.batch, seed=2),
        "training losses depend on torch's generator: draw with aimcore.contracts.randomness from (batch.seed, sample "
        "number)",
    )


def check_validation_is_the_same_for_every_run(objective: Objective) -> None:
    """In evaluation mode nothing is drawn: not from torch's generator, nor from the batch's seed."""
    instrumented = _instrumented(objective)
    instrumented.module.eval()
    _require_alike(
        _sums_under(instrumented, attrs.evolve(instrumented.batch, seed=1), seed=1),
        _sums_under(instrumented, attrs.evolve(instrumented.batch, seed=2), seed=2),
        "validation losses depend on a seed: use a fixed prefix, mask or order in evaluation mode",
    )


def check_the_trunk_is_trained(objective: Objective) -> None:
    """The losses have a gradient in the trunk's weights."""
    instrumented = _instrumented(objective)
    instrumented.module.train()
    total = torch.stack([loss.sum for loss in instrumented.losses().values()]).sum()
    require(total.requires_grad, "the losses carry no gradient")
    total.backward()  # type: ignore[no-untyped-call]
    reached = any(weight.grad is not None and bool(weight.grad.any()) for weight in instrumented.trunk.parameters())
    require(reached, "no gradient reaches the trunk: are its features detached?")


def check_every_grid_is_trained_on_or_refused(objective: Objective) -> None:
    """If ``problems_with(grid)`` reports nothing, images of that grid have finite losses with targets."""
    instrumented = _instrumented(objective)
    for grid in some_grids():
        if tuple(objective.problems_with(grid)):
            continue
        where = f"on {grid.rows} x {grid.columns} patches, for which problems_with reports nothing"
        batch = batch_for(objective, random_images(grid))
        with explained(f"fails {where}"):
            sums = _sums(instrumented, batch)
        require(sum(number for _, number in sums.values()) > 0, f"nothing is scored {where}")
        finite = torch.tensor([total for total, _ in sums.values()]).isfinite().all()
        require(bool(finite), f"losses are not finite {where}")


def check_any_grid_means_tokens_of_any_grid(objective: Objective) -> None:
    """If ``any_grid`` is true, it trains a trunk that merges tokens, whose grid is coarser than that of the patches."""
    if not objective.any_grid:
        return
    instrumented = InstrumentedObjective.of(Case(objective.name, MergingTrunk(), objective, GRID))
    for mode in instrumented.in_both_modes():
        with explained(
            f"{mode}: any_grid is true, but a trunk that merges tokens cannot be trained: read features as a "
            "whole, and set no reading order"
        ):
            losses = instrumented.losses()
            torch.stack([loss.sum for loss in losses.values()]).sum().backward()  # type: ignore[no-untyped-call]
        finite = all(bool(loss.sum.isfinite()) for loss in losses.values())
        require(finite, f"{mode}: losses of a trunk that merges tokens are not finite")


def check_its_reading_is_an_order_of_the_patches(objective: Objective) -> None:
    """``probe_reading(batch)`` gives raster order (None) or one permutation per image, and no attention of its own."""
    batch = batch_for(objective, random_images())
    reading = objective.probe_reading(batch)
    shape = len(batch.images.grids), GRID.num_patches
    order_BN = reading.order_BN
    if order_BN is not None:
        require(order_BN.shape == shape, f"probe_reading's order_BN must be {list(shape)}, got {shape_of(order_BN)}")
        steps_N = torch.arange(GRID.num_patches)
        require(bool((order_BN.sort(dim=1).values == steps_N).all()), "probe_reading's order_BN must be permutations")
    require(not reading.attention.causal, "probe_reading must leave attention alone: it is the probe's own")


def check_pictures_are_patches_or_refused(objective: Objective) -> None:
    """``predicted_patches`` gives ``[B, N, F]`` pixels and ``[B, N]`` bool in raster order, or NotImplementedError."""
    instrumented = _instrumented(objective)
    instrumented.module.eval()
    patches_BNF = instrumented.batch.images.patches_BNF
    try:
        drawn = instrumented.module.predicted_patches(instrumented.batch)
    except NotImplementedError:
        return
    require(
        drawn.patches_BNF.shape == patches_BNF.shape,
        f"predicted patches must be {list(patches_BNF.shape)}, got {shape_of(drawn.patches_BNF)}",
    )
    good = drawn.predicted_BN.shape == patches_BNF.shape[:2] and drawn.predicted_BN.dtype == torch.bool
    require(good, f"predicted_BN must be {list(patches_BNF.shape[:2])} bool, got {shape_of(drawn.predicted_BN)}")


def check_weights_follow_torchs_seed(objective: Objective) -> None:
    """``build`` draws fresh weights from torch's global generator alone, and never seeds it."""
    modules.weights_follow_torchs_seed(lambda: assembled(StandInTrunk(), objective))


def check_its_parts_return_tensors(objective: Objective) -> None:
    """Every part returns tensors, NamedTuples or dicts of them: ZeRO stage 3 sees no others."""
    instrumented = _instrumented(objective)
    with modules.collect_opaque_outputs(instrumented.module) as unseen:
        instrumented.losses()
    modules.require_visible_outputs(unseen)


def check_the_batch_is_left_as_it_was(objective: Objective) -> None:
    """Nothing is changed in place."""
    instrumented, batch = _instrumented(objective), batch_for(objective, random_images())
    before = copy_of(batch)
    instrumented.losses_of(batch)
    unchanged = all(torch.equal(one, other) for one, other in zip(_tensors(batch), _tensors(before), strict=True))
    require(unchanged, "forward changes the batch in place: work on a copy")


def check_a_dry_run_can_count_it(objective: Objective) -> None:
    """It is built and run without numbers (on the meta device), as ``--dry-run`` needs."""
    batch = on_meta(batch_for(objective, random_images()))
    with explained("fails without numbers: do not read what tensors hold (no .item(), no .cpu(), no 'if tensor')"):
        with torch.device("meta"):
            module = assembled(StandInTrunk(), objective)
        module(batch)


def check_it_trains_alike_at_zero_stages_0_and_3(objective: Objective) -> None:
    """Two steps at ZeRO stage 3 give the losses of stage 0: its weights are used where stage 3 gathers them."""

    def build() -> ObjectiveModule:
        return assembled(StandInTrunk(), objective)

    trains_alike_at_stages_0_and_3(build, batch_for(objective, random_images(number=4)))


CHECKS: tuple[Check, ...] = (
    check_its_requirements_are_known,
    check_counts_are_known_before_any_forward,
    check_losses_per_step_add_up,
    check_nothing_scored_reads_its_own_answer,
    check_images_do_not_mix,
    check_a_batch_is_the_sum_of_its_parts,
    check_randomness_belongs_to_the_sample,
    check_validation_is_the_same_for_every_run,
    check_the_trunk_is_trained,
    check_every_grid_is_trained_on_or_refused,
    check_any_grid_means_tokens_of_any_grid,
    check_its_reading_is_an_order_of_the_patches,
    check_pictures_are_patches_or_refused,
    check_it_has_its_skills,
    check_weights_follow_torchs_seed,
    check_its_parts_return_tensors,
    check_the_batch_is_left_as_it_was,
    check_a_dry_run_can_count_it,
    check_it_trains_alike_at_zero_stages_0_and_3,
    *states.CHECKS,
)


def _instrumented(objective: Objective) -> InstrumentedObjective:
    """The objective on a trunk with all capabilities."""
    return InstrumentedObjective.of(Case(objective.name, StandInTrunk(), objective, GRID))


def _require_none(objective: Objective, find: Callable[[InstrumentedObjective], Iterator[str]]) -> None:
    instrumented = _instrumented(objective)
    found = [f"{mode}: {text}" for mode in instrumented.in_both_modes() for text in find(instrumented)]
    require(not found, f"{len(found)} findings; the first: {'; '.join(found[:2])}")


Sums = dict[str, tuple[float, int]]


def _sums(instrumented: InstrumentedObjective, batch: Batch) -> Sums:
    with torch.no_grad():
        losses = instrumented.losses_of(batch)
    return {name: (float(loss.sum), int(loss.num_targets)) for name, loss in losses.items()}


def _sums_under(instrumented: InstrumentedObjective, batch: Batch, *, seed: int) -> Sums:
    """The same, with ``seed`` as the seed of torch's generator."""
    with torch.no_grad(), seeded(seed):
        losses = instrumented.module(batch)
    return {name: (float(loss.sum), int(loss.num_targets)) for name, loss in losses.items()}


def _require_alike(one: Sums, other: Sums, message: str) -> None:
    differing = [
        name
        for name, (total, number) in one.items()
        if abs(total - other[name][0]) > _RELATIVE * abs(total) or number != other[name][1]
    ]
    require(not differing, f"losses {differing}: {message}")


def _tensors(batch: Batch) -> list[Tensor]:
    labels = [] if batch.labels_B is None else [batch.labels_B]
    text = [] if batch.text is None else [batch.text.ids_BT, batch.text.valid_BT]
    extras = [value for value in batch.extras.values() if isinstance(value, Tensor)]
    return [batch.images.patches_BNF, batch.sample_numbers_B, *labels, *batch.views.values(), *extras, *text]
