"""Does anything that is scored read its own answer?

The check knows nothing of masks or orders. It builds an objective on a trunk whose input it controls, and finds out,
for every scored step, which patches the *target* depends on and which patches the *prediction* depends on, the latter
by gradients and by perturbing pixels. A prediction that depends on its own target, or, where the objective is
autoregressive, on the target of a later step, is a leak. One that depends on nothing is blind.

Shape suffixes: B batch, N patches, F values per patch, S steps of the reading order, P patches in raster order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import attrs
import torch
from torch import Tensor

from aimcore.experiment import Experiment
from aimcore.testing.accounts import miscounts_of, missums_of, mixtures_of
from aimcore.testing.cases import Case, installed_cases
from aimcore.testing.material import changed_patch, with_changed_patch
from aimcore.testing.requirements import TOLERANCE, differs
from aimcore.testing.watching import Watched
from aimcore.values import PatchGrid

__all__ = ["Case", "case_of", "findings_of", "installed_cases", "leaks_of"]


class _Dependence(NamedTuple):
    """What each scored step depends on; all are ``[B, S, P]`` bool but ``scored_BS``."""

    scored_BS: Tensor
    target: Tensor
    by_gradient: Tensor
    by_perturbation: Tensor


def case_of(experiment: Experiment) -> Case:
    """The trunk and objective of an experiment, on the grid of its images."""
    side = experiment.data.image_size // experiment.trunk.patch_size
    return Case(experiment.name, experiment.trunk, experiment.objective, PatchGrid(side, side))


def findings_of(case: Case, *, seed: int = 0) -> list[str]:
    """What is wrong with the causality of a trunk and objective; empty when all is well.

    Both training and evaluation mode are checked, in float64, with every weight drawn nonzero.
    """
    watched = Watched.of(case, seed=seed)
    return [
        f"{mode}: {text}"
        for mode in watched.in_both_modes()
        for find in (missums_of, miscounts_of, mixtures_of, leaks_of)
        for text in find(watched)
    ]


def leaks_of(watched: Watched) -> Iterator[str]:
    """Scored steps that read what they must not, or nothing, or of which it cannot be told."""
    needs = set(watched.case.objective.needs)
    for name, loss in watched.losses().items():
        if loss.per_position_BN is None:
            if {"causal", "prefix", "hide"} & needs and _may_be_read(watched, name):
                yield f"loss {name!r} has no per_position_BN: what each step reads cannot be told"
            continue
        found = _dependence(watched, name)
        if watched.batch.text is not None and not found.target.any():
            leaks = _leaks_of_text(watched, name, found)
        else:
            leaks = _leaks(found, watched.case.grid, autoregressive=bool({"causal", "prefix"} & needs))
        yield from (f"loss {name!r}: {text}" for text in leaks)


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
    batch, patches_BNF = watched.batch, watched.batch.images.patches_BNF
    with torch.no_grad():
        base_BS = watched.per_position(name)
        target, read = [], []
        for patch in range(patches_BNF.shape[1]):
            target.append(differs(base_BS, watched.per_position(name, with_changed_patch(batch, patch))))
            read.append(differs(base_BS, watched.per_position(name, read_BNF=changed_patch(patches_BNF, patch))))
    return _Dependence(
        scored_BS=~base_BS.isnan(),
        target=torch.stack(target, dim=-1),
        by_gradient=_gradients(watched, name),
        by_perturbation=torch.stack(read, dim=-1),
    )


def _gradients(watched: Watched, name: str) -> Tensor:
    """[B, S, P]: whether the loss at a step has a gradient in any value of a patch that the trunk reads."""
    leaf_BNF = watched.batch.images.patches_BNF.clone().requires_grad_()
    per_position_BS = watched.per_position(name, read_BNF=leaf_BNF).nan_to_num()
    rows = []
    for step in range(per_position_BS.shape[1]):
        (gradient_BPF,) = torch.autograd.grad(per_position_BS[:, step].sum(), leaf_BNF, retain_graph=True)
        rows.append((gradient_BPF.abs() > TOLERANCE).any(-1))
    return torch.stack(rows, dim=1)


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
        for image, step in found.scored_BS.nonzero().tolist():
            own_P, read_P = found.target[image, step], read[image, step]
            later_P = (found.target[image, step + 1 :] & found.scored_BS[image, step + 1 :, None]).any(0)
            where = f"image {image}, step {step}"
            if not own_P.any():
                yield f"{where}: the target depends on no patch"
            if (own_P & read_P).any():
                yield f"{where} reads its own target, patch {_names(own_P & read_P, grid)} (by {method})"
            if autoregressive and (later_P & read_P).any():
                yield f"{where} reads targets of later steps, patches {_names(later_P & read_P, grid)} (by {method})"
            if not read_P.any():
                yield f"{where} is blind: its prediction depends on no patch (by {method})"


def _names(patches_P: Tensor, grid: PatchGrid) -> str:
    places = [f"({index // grid.columns}, {index % grid.columns})" for index in patches_P.nonzero().flatten().tolist()]
    return ", ".join(places[:4]) + (f" and {len(places) - 4} more" if len(places) > 4 else "")
