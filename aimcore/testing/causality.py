"""Does anything that is scored read its own answer?

The check knows nothing of masks or orders. It builds an objective on a trunk whose input it controls, and finds out,
for every scored step, which patches the *target* depends on and which patches the *prediction* depends on, the latter
by gradients and by perturbing pixels. A prediction that depends on its own target, or, where the objective is
autoregressive, on the target of a later step, is a leak. One that depends on nothing is blind. A loss of which this
cannot be told is in doubt, with the reason: it is called neither causal nor leaking.

What the prediction depends on is what changes in the trunk's input: an objective that masks pixels before the trunk
reads them is judged by what it passes on. All other ways from the pixels to the loss count as the target's. Where a
target depends on more than the patch that is scored (a teacher's token does), ``Loss.scored_patch_BN`` names the patch.

Shape suffixes: B batch, N patches, F values per patch, S steps of the reading order, P patches in raster order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import attrs
import torch
from torch import Tensor

from aimcore.contracts.images import PatchGrid
from aimcore.contracts.results import Loss
from aimcore.experiment import Experiment
from aimcore.testing.cases import Case, installed_cases
from aimcore.testing.fixtures import moved_patches, with_changed_patch
from aimcore.testing.instrumented import Watched
from aimcore.testing.loss_invariants import miscounts_of, missums_of, mixtures_of
from aimcore.testing.requirements import TOLERANCE, differs, shape_of

__all__ = ["Case", "Doubt", "case_of", "doubts_of", "findings_of", "installed_cases", "judged", "leaks_of"]


class Doubt(NamedTuple):
    """Why it cannot be told whether a loss reads its own answer."""

    text: str
    is_fault: bool
    """Whether the objective breaks its contract: its steps must not see each other, or what it says is wrong."""


class Judgement(NamedTuple):
    """What is found of the causality of a case, each text with the mode that it was found in."""

    leaks: list[str]
    doubts: list[Doubt]


_ATTEMPTS = 16
"""Ways to change a patch: of four codes, one in four does not change at once, and one in 10^9 not at all."""


class _Dependence(NamedTuple):
    """What each scored step depends on; all are ``[B, S, P]`` bool but ``scored_BS``."""

    scored_BS: Tensor
    target: Tensor
    own: Tensor
    """The patch that is scored, where the loss says so; else all that its target depends on."""
    by_gradient: Tensor | None
    """None where the loss has no gradient in any pixel."""
    by_perturbation: Tensor


def case_of(experiment: Experiment) -> Case:
    """The trunk and objective of an experiment, on the grid of its images."""
    side = experiment.data.image_size // experiment.trunk.patch_size
    return Case(experiment.name, experiment.trunk, experiment.objective, PatchGrid(side, side))


def judged(case: Case, *, seed: int = 0) -> Judgement:
    """What of the causality of a trunk and objective is wrong, and what of it cannot be told.

    Both training and evaluation mode are checked, in float64, with every weight drawn nonzero.
    """
    watched = Watched.of(case, seed=seed)
    leaks: list[str] = []
    doubts: list[Doubt] = []
    for mode in watched.in_both_modes():
        doubts += (Doubt(f"{mode}: {text}", True) for find in (missums_of, miscounts_of) for text in find(watched))
        doubts += (doubt._replace(text=f"{mode}: {doubt.text}") for doubt in doubts_of(watched))
        leaks += (f"{mode}: {text}" for find in (mixtures_of, leaks_of) for text in find(watched))
    return Judgement(leaks, doubts)


def findings_of(case: Case, *, seed: int = 0) -> list[str]:
    """What is wrong with the causality of a trunk and objective; empty when all is well.

    A loss of which it cannot be told, and need not be, is not among the findings.
    """
    leaks, doubts = judged(case, seed=seed)
    return [*(doubt.text for doubt in doubts if doubt.is_fault), *leaks]


def doubts_of(watched: Watched) -> Iterator[Doubt]:
    """Why it cannot be told of some losses whether they read their own answer.

    An objective whose steps must not see each other has to give its losses per step. Another one, such as denoising,
    may mean to read what it predicts.
    """
    must_be_told = bool({"causal", "prefix", "mask"} & set(watched.case.objective.requires))
    for name, loss in watched.losses().items():
        if loss.per_position_BN is None:
            if _may_be_read(watched, name):
                text = f"loss {name!r} has no per_position_BN: whether it reads its own answer cannot be told"
                yield Doubt(text, must_be_told)
        elif doubt := _doubt_per_step(watched, loss):
            yield Doubt(f"loss {name!r} {doubt}", True)


def _doubt_per_step(watched: Watched, loss: Loss) -> str:
    """Why a loss that is given per step cannot be judged; empty where it can."""
    if not watched.read_of(watched.batch):
        return "calls neither the trunk nor a deepcopy of it: what each step reads cannot be told"
    return _misplaced(loss, watched.case.grid)


def leaks_of(watched: Watched) -> Iterator[str]:
    """Scored steps that read what they must not, or nothing; losses that cannot be judged are left out."""
    needs = set(watched.case.objective.requires)
    for name, loss in watched.losses().items():
        if loss.per_position_BN is None or _doubt_per_step(watched, loss):
            continue
        found = _dependence(watched, name)
        if watched.batch.text is not None and not found.target.any():
            leaks = _leaks_of_text(watched, name, found)
        else:
            leaks = _leaks(found, watched.case.grid, autoregressive=bool({"causal", "prefix"} & needs))
        yield from (f"loss {name!r}: {text}" for text in leaks)


def _misplaced(loss: Loss, grid: PatchGrid) -> str:
    """What is wrong with ``scored_patch_BN``; empty if nothing, or if it is not given."""
    patch_BS, per_position_BS = loss.scored_patch_BN, loss.per_position_BN
    assert per_position_BS is not None
    if patch_BS is None:
        return ""
    if patch_BS.shape != per_position_BS.shape or patch_BS.dtype != torch.int64:
        wanted = f"{list(per_position_BS.shape)} int64"
        return f"has a wrong scored_patch_BN: it must be {wanted}, got {shape_of(patch_BS)}"
    patch_M = patch_BS[~per_position_BS.isnan()]
    outside = patch_M[(patch_M < 0) | (patch_M >= grid.num_patches)]
    if not len(outside):
        return ""
    return f"has a wrong scored_patch_BN: it holds {int(outside[0])}, and there are {grid.num_patches} patches"


@torch.no_grad()
def _may_be_read(watched: Watched, name: str) -> bool:
    """Whether the targets of a loss are in what is read: tokens of a text, or patches. Labels are not."""
    if watched.batch.text is not None:
        return True
    base = watched.losses()[name].sum
    patches = range(watched.batch.images.patches_BNF.shape[1])
    changed = (watched.losses(with_changed_patch(watched.batch, patch))[name].sum for patch in patches)
    return any(bool(differs(base, other)) for other in changed)


def _dependence(watched: Watched, name: str) -> _Dependence:
    batch = watched.batch
    patches = range(batch.images.patches_BNF.shape[1])
    with torch.no_grad():
        loss = watched.losses()[name]
        base_BS = loss.per_position_BN
        assert base_BS is not None
        changed = [with_changed_patch(batch, patch) for patch in patches]
        target_BSP = _seen_by_target(watched, name, loss)
        read = [differs(base_BS, watched.per_position(name, read=watched.read_of(each))) for each in changed]
    patch_BS = loss.scored_patch_BN
    return _Dependence(
        scored_BS=~base_BS.isnan(),
        target=target_BSP,
        own=target_BSP if patch_BS is None else patch_BS.unsqueeze(-1) == torch.arange(len(patches)),
        by_gradient=_gradients(watched, name),
        by_perturbation=torch.stack(read, dim=-1),
    )


def _seen_by_target(watched: Watched, name: str, loss: Loss) -> Tensor:
    """[B, S, P]: whether the target of a step depends on a patch, while the trunk reads what it did.

    A code need not change with the pixels that it is of: patches are changed in other ways too, until every scored step
    is found to depend on some patch (on its own, where the loss says which that is).
    """
    base_BS, patch_BS = loss.per_position_BN, loss.scored_patch_BN
    assert base_BS is not None
    patches_P = torch.arange(watched.batch.images.patches_BNF.shape[1])
    own_BSP = torch.ones(*base_BS.shape, len(patches_P), dtype=torch.bool)
    if patch_BS is not None:
        own_BSP = patch_BS.unsqueeze(-1) == patches_P
    target_BSP = torch.zeros_like(own_BSP)
    for attempt in range(_ATTEMPTS):
        changed = [with_changed_patch(watched.batch, patch, attempt=attempt) for patch in patches_P.tolist()]
        moved = [differs(base_BS, watched.per_position(name, each)) for each in changed]
        target_BSP |= torch.stack(moved, dim=-1)
        is_found = ((target_BSP & own_BSP).any(-1) | base_BS.isnan()).all()
        if is_found or not target_BSP.any():
            break
    return target_BSP


def _gradients(watched: Watched, name: str) -> Tensor | None:
    """[B, S, P]: whether the loss at a step has a gradient in a patch that the trunk reads; None if none has any."""
    batch, moved_BP = moved_patches(watched.batch)
    per_position_BS = watched.per_position(name, read=watched.read_of(batch)).nan_to_num()
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
def _leaks_of_text(watched: Watched, name: str, found: _Dependence) -> Iterator[str]:
    """The same for a loss whose targets are tokens; whether a token reads itself, the checks of decoders find."""
    text, base_BT = watched.batch.text, watched.per_position(name)
    assert text is not None
    if not found.by_perturbation.any():
        yield "is blind: no token's prediction depends on a patch"
    for token in range(1, base_BT.shape[1]):
        ids_BT = text.ids_BT.clone()
        ids_BT[:, token] = torch.where(text.valid_BT[:, token], text.ids_BT[:, token - 1], text.ids_BT[:, token])
        changed = attrs.evolve(watched.batch, text=attrs.evolve(text, ids_BT=ids_BT))
        earlier_BT = differs(base_BT, watched.per_position(name, changed))[:, :token]
        if earlier_BT.any():
            image, step = earlier_BT.nonzero()[0].tolist()
            yield f"image {image}: the prediction of token {step} reads token {token}"


def _leaks(found: _Dependence, grid: PatchGrid, *, autoregressive: bool) -> Iterator[str]:
    for method, read in (("gradient", found.by_gradient), ("perturbation", found.by_perturbation)):
        if read is not None:
            yield from (f"{text} (by {method})" for text in _leaks_by(read, found, grid, autoregressive=autoregressive))
    if found.target.any():  # labels depend on no patch, and nobody can read them
        for image, step in found.scored_BS.nonzero().tolist():
            absent_P = found.own[image, step] & ~found.target[image, step]
            if not found.target[image, step].any():
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
    places = [f"({index // grid.columns}, {index % grid.columns})" for index in patches_P.nonzero().flatten().tolist()]
    return ", ".join(places[:4]) + (f" and {len(places) - 4} more" if len(places) > 4 else "")
