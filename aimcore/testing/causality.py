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
from torch import Tensor, nn

from aimcore.experiment import Experiment
from aimcore.modules import ObjectiveModule, TrunkModule
from aimcore.roles import Objective, Trunk
from aimcore.testing.cases import Case, installed_cases
from aimcore.values import Batch, Features, Images, PatchGrid, Reading

__all__ = ["Case", "case_of", "findings_of", "installed_cases"]

_NUM_IMAGES = 3
_TOLERANCE = 1e-10
"""Below this a float64 loss has not changed: real dependences of random networks are many orders larger."""


class _WatchedTrunk(TrunkModule):
    """The trunk, reading patches that the check chooses, whatever the objective passes."""

    def __init__(self, inner: TrunkModule) -> None:
        super().__init__()
        self.inner = inner
        self.width, self.depth = inner.width, inner.depth
        self.patch_size, self.num_channels = inner.patch_size, inner.num_channels
        self.patches_BNF: Tensor = torch.empty(0)

    def forward(self, images: Images, reading: Reading) -> Features:
        features: Features = self.inner(attrs.evolve(images, patches_BNF=self.patches_BNF), reading)
        return features


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
    watched, module = _build(case.trunk, case.objective, seed)
    batch = _random_batch(case, watched, seed)
    findings = []
    for mode in ("training", "evaluation"):
        module.train(mode == "training")
        findings += [f"{mode}: {text}" for text in _findings_in_one_mode(case, watched, module, batch)]
    return findings


def _build(trunk: Trunk, objective: Objective, seed: int) -> tuple[_WatchedTrunk, ObjectiveModule]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        watched = _WatchedTrunk(trunk.build())
        module = objective.build(watched).double()
        _draw_nonzero(module)
    return watched, module


@torch.no_grad()
def _draw_nonzero(module: nn.Module) -> None:
    """Freshly made layers may be zero (a gate, an output layer) and hide what they will pass on once trained."""
    for parameter in module.parameters():
        fan_in = parameter.shape[-1] if parameter.dim() > 1 else 4
        parameter.add_(torch.randn_like(parameter) * fan_in**-0.5)


def _random_batch(case: Case, trunk: TrunkModule, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    num_values = trunk.patch_size**2 * trunk.num_channels
    shape = (_NUM_IMAGES, case.grid.num_patches, num_values)
    images = Images(
        patches_BNF=torch.randn(shape, generator=generator, dtype=torch.float64),
        grids=(case.grid,) * _NUM_IMAGES,
        patch_size=trunk.patch_size,
    )
    views = {
        view.key: torch.rand(
            (
                _NUM_IMAGES,
                trunk.num_channels,
                case.grid.rows * view.pixels_per_patch,
                case.grid.columns * view.pixels_per_patch,
            ),
            generator=generator,
            dtype=torch.float64,
        )
        for view in case.objective.views
    }
    return Batch(images=images, sample_numbers_B=torch.arange(_NUM_IMAGES), seed=seed, views=views)


def _findings_in_one_mode(case: Case, watched: _WatchedTrunk, module: ObjectiveModule, batch: Batch) -> Iterator[str]:
    watched.patches_BNF = batch.images.patches_BNF
    for name, loss in module(batch).items():
        if loss.per_position_BN is None:
            yield f"loss {name!r} has no per_position_BN: what each step reads cannot be told"
            continue
        if not torch.isclose(loss.per_position_BN.nansum(), loss.sum, rtol=1e-9):
            yield f"loss {name!r}: per_position_BN does not add up to sum"
        if int(loss.num_targets) != int((~loss.per_position_BN.isnan()).sum()):
            yield f"loss {name!r}: num_targets is not the number of scored steps in per_position_BN"
        if module.counts(batch)[name] != int(loss.num_targets):
            yield f"loss {name!r}: counts(batch) differs from the loss's num_targets"
        if _samples_mix(watched, module, batch, name):
            yield f"loss {name!r}: one image's loss depends on another image"
        autoregressive = bool({"causal", "prefix"} & case.objective.needs)
        found = _dependence(watched, module, batch, name)
        yield from (f"loss {name!r}: {text}" for text in _leaks(found, case.grid, autoregressive))


def _per_position(module: ObjectiveModule, batch: Batch, name: str) -> Tensor:
    per_position_BS: Tensor = module(batch)[name].per_position_BN
    return per_position_BS


@torch.no_grad()
def _samples_mix(watched: _WatchedTrunk, module: ObjectiveModule, batch: Batch, name: str) -> bool:
    watched.patches_BNF = batch.images.patches_BNF
    before_S = _per_position(module, batch, name)[0]
    changed = batch.images.patches_BNF.clone()
    changed[1:] = changed[1:].flip(-1) + 1
    watched.patches_BNF = changed
    return bool(_differs(before_S, _per_position(module, batch, name)[0]).any())


def _dependence(watched: _WatchedTrunk, module: ObjectiveModule, batch: Batch, name: str) -> _Dependence:
    patches_BNF = batch.images.patches_BNF
    watched.patches_BNF = patches_BNF
    with torch.no_grad():
        base_BS = _per_position(module, batch, name)
        target, read = [], []
        for patch in range(patches_BNF.shape[1]):
            watched.patches_BNF = patches_BNF
            target.append(_differs(base_BS, _per_position(module, _perturbed_batch(batch, patch), name)))
            watched.patches_BNF = _perturbed(patches_BNF, patch)
            read.append(_differs(base_BS, _per_position(module, batch, name)))
    return _Dependence(
        scored_BS=~base_BS.isnan(),
        target=torch.stack(target, dim=-1),
        by_gradient=_gradients(watched, module, batch, name),
        by_perturbation=torch.stack(read, dim=-1),
    )


def _gradients(watched: _WatchedTrunk, module: ObjectiveModule, batch: Batch, name: str) -> Tensor:
    """[B, S, P]: whether the loss at a step has a gradient in any value of a patch that the trunk reads."""
    leaf_BNF = batch.images.patches_BNF.clone().requires_grad_()
    watched.patches_BNF = leaf_BNF
    per_position_BS = _per_position(module, batch, name).nan_to_num()
    rows = []
    for step in range(per_position_BS.shape[1]):
        (gradient_BPF,) = torch.autograd.grad(per_position_BS[:, step].sum(), leaf_BNF, retain_graph=True)
        rows.append((gradient_BPF.abs() > _TOLERANCE).any(-1))
    return torch.stack(rows, dim=1)


def _differs(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).nan_to_num().abs() > _TOLERANCE


def _perturbed(patches_BNF: Tensor, patch: int) -> Tensor:
    changed = patches_BNF.clone()
    # Reversing and stretching changes a patch's mean, variance and shape, so that every kind of target moves.
    changed[:, patch] = 2 * changed[:, patch].flip(-1) + 1
    return changed


def _perturbed_batch(batch: Batch, patch: int) -> Batch:
    images, columns = batch.images, batch.images.grid.columns
    views = {}
    for key, view in batch.views.items():
        side = view.shape[-1] // columns
        top, left = patch // columns * side, patch % columns * side
        changed = view.clone()
        changed[..., top : top + side, left : left + side] = 1 - changed[..., top : top + side, left : left + side]
        views[key] = changed
    return attrs.evolve(
        batch, images=attrs.evolve(images, patches_BNF=_perturbed(images.patches_BNF, patch)), views=views
    )


def _leaks(found: _Dependence, grid: PatchGrid, autoregressive: bool) -> Iterator[str]:
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
