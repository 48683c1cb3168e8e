"""The causality check: does a prediction depend on its own target?

The check does not know masks or orders. It builds an objective on a trunk whose input it controls. For every scored
step it measures which patches the *target* depends on, and which patches the *prediction* depends on, the latter by
gradients and by perturbed pixels. A prediction that depends on its own target is a leak; so is, in an autoregressive
objective, one that depends on the target of a later step. A prediction that depends on no patch is blind. If the check
cannot decide about a loss, the loss is in doubt, with the reason: it is reported neither as causal nor as leaking.

A prediction depends on the trunk's input: if an objective masks pixels before the trunk reads them, the check perturbs
the masked pixels. Every other path from the pixels to the loss counts as the target's. If a target depends on more than
the scored patch, as a teacher's token does, ``Loss.scored_patch_BN`` names the patch.

Shape suffixes: B batch, N patches, F values per patch, S steps of the reading order, P patches in raster order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import attrs
import torch
from torch import Tensor

from aimcore.contracts.batches import Batch, Text
from aimcore.contracts.images import PatchGrid
from aimcore.contracts.results import Loss
from aimcore.experiment import Experiment
from aimcore.testing.cases import Case, installed_cases
from aimcore.testing.fixtures import moved_patches, with_changed_patch
from aimcore.testing.instrumented import InstrumentedObjective
from aimcore.testing.loss_invariants import mixed_images_of, wrong_counts_of, wrong_sums_of
from aimcore.testing.requirements import TOLERANCE, differs, shape_of

__all__ = ["Case", "Doubt", "case_of", "causality_of", "doubts_of", "findings_of", "installed_cases", "leaks_of"]


class Doubt(NamedTuple):
    """The reason why the check cannot decide whether a loss depends on its own target."""

    text: str
    is_fault: bool
    """Whether the objective breaks its contract: it must give losses per step, or gives wrong patches."""


class CausalityResult(NamedTuple):
    """The result of the causality check of a case; each text begins with the mode, training or evaluation."""

    leaks: list[str]
    doubts: list[Doubt]


_ATTEMPTS = 16
"""Attempts to change a patch so that its code changes: of 4 codes, a code stays with odds of 1 in 4 per attempt."""


class _Dependence(NamedTuple):
    """Dependences of each scored step; all are ``[B, S, P]`` bool except ``scored_BS``."""

    scored_BS: Tensor
    target: Tensor
    own: Tensor
    """The scored patch, if the loss names it; otherwise all patches that the target depends on."""
    by_gradient: Tensor | None
    """None if the loss has no gradient in any pixel."""
    by_perturbation: Tensor


def case_of(experiment: Experiment) -> Case:
    """The trunk and objective of an experiment, on the grid of its images."""
    side = experiment.data.image_size // experiment.trunk.patch_size
    return Case(experiment.name, experiment.trunk, experiment.objective, PatchGrid(side, side))


def causality_of(case: Case, *, seed: int = 0) -> CausalityResult:
    """Check the causality of a trunk and objective; return leaks and doubts.

    The check runs in training mode and in eval mode, in float64, with nonzero weights.
    """
    instrumented = InstrumentedObjective.of(case, seed=seed)
    leaks: list[str] = []
    doubts: list[Doubt] = []
    for mode in instrumented.in_both_modes():
        doubts += (
            Doubt(f"{mode}: {text}", True) for find in (wrong_sums_of, wrong_counts_of) for text in find(instrumented)
        )
        doubts += (doubt._replace(text=f"{mode}: {doubt.text}") for doubt in doubts_of(instrumented))
        leaks += (f"{mode}: {text}" for find in (mixed_images_of, leaks_of) for text in find(instrumented))
    return CausalityResult(leaks, doubts)


def findings_of(case: Case, *, seed: int = 0) -> list[str]:
    """Return the leaks and faults of a trunk and objective; empty if there are none.

    A loss in doubt is a finding only if its objective must give losses per step.
    """
    leaks, doubts = causality_of(case, seed=seed)
    return [*(doubt.text for doubt in doubts if doubt.is_fault), *leaks]


def doubts_of(instrumented: InstrumentedObjective) -> Iterator[Doubt]:
    """Yield the losses for which the check cannot decide whether they depend on their own targets.

    An objective that requires causal attention, a prefix or masks must give its losses per step. Another one, such as
    denoising, may read what it predicts on purpose.
    """
    is_required = bool({"causal", "prefix", "mask"} & set(instrumented.case.objective.requires))
    for name, loss in instrumented.losses().items():
        if loss.per_position_BN is None:
            if _may_be_read(instrumented, name):
                text = f"loss {name!r} has no per_position_BN: the check cannot decide whether it reads its own target"
                yield Doubt(text, is_required)
        elif doubt := _doubt_per_step(instrumented, loss):
            yield Doubt(f"loss {name!r} {doubt}", True)


def _doubt_per_step(instrumented: InstrumentedObjective, loss: Loss) -> str:
    """Why the check cannot decide about a loss that is given per step; empty if it can."""
    if not instrumented.read_of(instrumented.batch):
        return "calls neither the trunk nor a deepcopy of it: the check cannot see what each step reads"
    return _misplaced(loss, instrumented.case.grid)


def leaks_of(instrumented: InstrumentedObjective) -> Iterator[str]:
    """Yield scored steps that read forbidden patches or none; losses in doubt are skipped."""
    required = set(instrumented.case.objective.requires)
    for name, loss in instrumented.losses().items():
        if loss.per_position_BN is None or _doubt_per_step(instrumented, loss):
            continue
        found = _dependence(instrumented, name)
        if instrumented.batch.text is not None and not found.target.any():
            leaks = _leaks_of_text(instrumented, name, found)
        else:
            leaks = _leaks(found, instrumented.case.grid, autoregressive=bool({"causal", "prefix"} & required))
        yield from (f"loss {name!r}: {text}" for text in leaks)


def _misplaced(loss: Loss, grid: PatchGrid) -> str:
    """The problem of ``scored_patch_BN``; empty if it is right or not given."""
    patch_BS, per_position_BS = loss.scored_patch_BN, loss.per_position_BN
    assert per_position_BS is not None
    if patch_BS is None:
        return ""
    if patch_BS.shape != per_position_BS.shape or patch_BS.dtype != torch.int64:
        expected = f"{list(per_position_BS.shape)} int64"
        return f"has a wrong scored_patch_BN: it must be {expected}, got {shape_of(patch_BS)}"
    patch_M = patch_BS[~per_position_BS.isnan()]
    outside = patch_M[(patch_M < 0) | (patch_M >= grid.num_patches)]
    if not len(outside):
        return ""
    return f"has a wrong scored_patch_BN: it holds {int(outside[0])}, and there are {grid.num_patches} patches"


@torch.no_grad()
def _may_be_read(instrumented: InstrumentedObjective, name: str) -> bool:
    """Whether the input contains the targets of a loss: tokens of a text, or patches, but not labels."""
    if instrumented.batch.text is not None:
        return True
    base = instrumented.losses()[name].sum
    changed = (instrumented.losses(copy)[name].sum for copy in _changed_copies(instrumented.batch))
    return any(bool(differs(base, other)) for other in changed)


def _changed_copies(batch: Batch, attempt: int = 0) -> list[Batch]:
    """One copy of the batch per patch, in which this patch is changed."""
    patches = range(batch.images.patches_BNF.shape[1])
    return [with_changed_patch(batch, patch, attempt=attempt) for patch in patches]


def _dependence(instrumented: InstrumentedObjective, name: str) -> _Dependence:
    with torch.no_grad():
        loss = instrumented.losses()[name]
        base_BS = loss.per_position_BN
        assert base_BS is not None
        target_BSP = _seen_by_target(instrumented, name, loss)
        read_BSP = _moved(instrumented, name, of_input=True)
    patch_BS = loss.scored_patch_BN
    return _Dependence(
        scored_BS=~base_BS.isnan(),
        target=target_BSP,
        own=target_BSP if patch_BS is None else patch_BS.unsqueeze(-1) == torch.arange(target_BSP.shape[-1]),
        by_gradient=_gradients(instrumented, name),
        by_perturbation=read_BSP,
    )


def _seen_by_target(instrumented: InstrumentedObjective, name: str, loss: Loss) -> Tensor:
    """[B, S, P]: whether the target of a step depends on a patch, while the input of the trunk stays the same.

    A code may stay the same if the pixels change. So patches are changed in several ways, until every scored step
    depends on some patch (on its scored patch, if the loss names it).
    """
    base_BS, patch_BS = loss.per_position_BN, loss.scored_patch_BN
    assert base_BS is not None
    patches_P = torch.arange(instrumented.batch.images.patches_BNF.shape[1])
    own_BSP = torch.ones(*base_BS.shape, len(patches_P), dtype=torch.bool)
    if patch_BS is not None:
        own_BSP = patch_BS.unsqueeze(-1) == patches_P
    target_BSP = torch.zeros_like(own_BSP)
    for attempt in range(_ATTEMPTS):
        target_BSP |= _moved(instrumented, name, attempt=attempt)
        is_found = ((target_BSP & own_BSP).any(-1) | base_BS.isnan()).all()
        if is_found or not target_BSP.any():
            break
    return target_BSP


def _moved(instrumented: InstrumentedObjective, name: str, *, of_input: bool = False, attempt: int = 0) -> Tensor:
    """[B, S, P]: whether the loss of a step changes with a patch of the trunk's input, or of everything else."""
    copies = _changed_copies(instrumented.batch, attempt)
    changed_PBS = instrumented.losses_of_copies(name, copies, of_input=of_input)
    return differs(instrumented.per_position(name), changed_PBS).movedim(0, -1)


def _gradients(instrumented: InstrumentedObjective, name: str) -> Tensor | None:
    """[B, S, P]: whether the loss at a step has a gradient in a patch that the trunk reads; None if none has any."""
    batch, moved_BP = moved_patches(instrumented.batch)
    per_position_BS = instrumented.per_position(name, read=instrumented.read_of(batch)).nan_to_num()
    if not per_position_BS.requires_grad:
        return None
    rows = []
    for step in range(per_position_BS.shape[1]):
        loss = per_position_BS[:, step].sum()
        (gradient_BP,) = torch.autograd.grad(loss, moved_BP, retain_graph=True, materialize_grads=True)
        rows.append(gradient_BP.abs() > TOLERANCE)
    gradient_BSP = torch.stack(rows, dim=1)
    return gradient_BSP if gradient_BSP.any() else None


@torch.no_grad()
def _leaks_of_text(instrumented: InstrumentedObjective, name: str, found: _Dependence) -> Iterator[str]:
    """The same for a loss whose targets are tokens. The checks of decoders test whether a token reads itself."""
    text, base_BT = instrumented.batch.text, instrumented.per_position(name)
    assert text is not None
    if not found.by_perturbation.any():
        yield "is blind: no token's prediction depends on a patch"
    tokens = range(1, base_BT.shape[1])
    if not tokens:
        return
    copies = [_with_changed_token(instrumented.batch, text, token) for token in tokens]
    changed_CBT = instrumented.losses_of_copies(name, copies)
    for token, changed_BT in zip(tokens, changed_CBT, strict=True):
        earlier_BT = differs(base_BT, changed_BT)[:, :token]
        if earlier_BT.any():
            image, step = earlier_BT.nonzero()[0].tolist()
            yield f"image {image}: the prediction of token {step} reads token {token}"


def _with_changed_token(batch: Batch, text: Text, token: int) -> Batch:
    """Replace a token by the one before it, except in padding."""
    ids_BT = text.ids_BT.clone()
    ids_BT[:, token] = torch.where(text.valid_BT[:, token], text.ids_BT[:, token - 1], text.ids_BT[:, token])
    return attrs.evolve(batch, text=attrs.evolve(text, ids_BT=ids_BT))


def _leaks(found: _Dependence, grid: PatchGrid, *, autoregressive: bool) -> Iterator[str]:
    for method, read in (("gradient", found.by_gradient), ("perturbation", found.by_perturbation)):
        if read is not None:
            yield from (f"{text} (by {method})" for text in _leaks_by(read, found, grid, autoregressive=autoregressive))
    if found.target.any():  # labels depend on no patch, and nobody can read them
        # The code of one image may stay the same whatever a patch shows, but not those of all images.
        ever_P = (found.own & found.target & found.scored_BS.unsqueeze(-1)).any(1).any(0)
        for image, step in found.scored_BS.nonzero().tolist():
            absent_P = found.own[image, step] & ~found.target[image, step] & ~ever_P
            if not found.target[image, step].any() and not (found.own[image, step] & ever_P).any():
                yield f"image {image}, step {step}: the target depends on no patch"
            elif absent_P.any():
                yield (
                    f"image {image}, step {step}: the target does not depend on patch {_names(absent_P, grid)}, which "
                    "scored_patch_BN says it scores"
                )


def _leaks_by(read: Tensor, found: _Dependence, grid: PatchGrid, *, autoregressive: bool) -> Iterator[str]:
    in_a_target = found.target.any()
    for image, step in found.scored_BS.nonzero().tolist():
        own_P, read_P = found.own[image, step] & in_a_target, read[image, step]
        later_P = (found.own[image, step + 1 :] & found.scored_BS[image, step + 1 :, None]).any(0) & in_a_target
        where = f"image {image}, step {step}"
        if (own_P & read_P).any():
            several = f", one of the {int(own_P.sum())} it depends on" if own_P.sum() > 1 else ""
            yield f"{where} reads its own target, patch {_names(own_P & read_P, grid)}{several}"
        if autoregressive and (later_P & read_P).any():
            yield f"{where} reads targets of later steps, patches {_names(later_P & read_P, grid)}"
        if not read_P.any():
            yield f"{where} is blind: its prediction depends on no patch"


def _names(patches_P: Tensor, grid: PatchGrid) -> str:
    names = [f"({index // grid.columns}, {index % grid.columns})" for index in patches_P.nonzero().flatten().tolist()]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
