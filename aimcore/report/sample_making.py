"""Predictions and attention for a few validation images, computed once from the recipe and the final weights.

A run stores no images while it trains. Drawing its report loads the trained model
(:mod:`aimcore.running.trained_model`, which unpickles nothing), reads a few images of the validation source, and stores
the results in ``samples.npz``; later reports require neither weights nor data. The file is computed again when recipe
or step change. Delete it after a plugin learned to show more.

Shape suffixes: B batch, H heads, N patches in raster order, S steps of the reading order, Q queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import attrs
import numpy as np
from loguru import logger
from torch import Tensor

from aimcore import recipe
from aimcore.contracts.batches import Batch
from aimcore.contracts.errors import AimcoreError, InvalidSamples
from aimcore.contracts.images import Images, PatchGrid, unpatchify
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.contracts.targets import TargetModule
from aimcore.data.loading import evaluation_batches
from aimcore.evaluation.eval_mode import eval_mode
from aimcore.evaluation.feature_extraction import frozen_reading
from aimcore.experiment import Data, Experiment
from aimcore.io.atomic_files import sha256_of
from aimcore.io.run_folder import WEIGHTS_FILE, RunFolder, step_of
from aimcore.report.sample_files import SampleArrays, read_samples, save_samples
from aimcore.running.trained_model import load_trained

NUM_IMAGES = 4
NUM_ATTENTION_IMAGES = 2
NUM_COUNTED_IMAGES = 512
"""Validation images whose codes are counted."""
_COUNTED_AT_ONCE = 32
FAILURES = (
    ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError
)  # fmt: skip
"""Exceptions of a damaged file, or of a mistake in a plugin: they cost one figure, not the whole report."""
_FORMAT = "2"
_COMPARED = 4
"""Number of samples whose reading orders are compared."""
_FAILED = "computing it failed: "


def samples_of(folder: Path) -> SampleArrays:
    """Return the samples of the experiment in ``folder``, from its file or computed and stored.

    Raises:
        AimcoreError: neither ``samples.npz`` nor the recipe can be read.
        OSError: a file cannot be read or written.
    """
    run = RunFolder(folder)
    last = run.final_checkpoint()
    made_from = _made_from(run, last)
    kept = _kept(run.samples)
    if kept is not None and made_from in ("", kept.made_from):
        return kept

    experiment = recipe.load(run.recipe)
    if last is None and experiment.num_steps:
        reason = f"there are no weights: no complete checkpoint in {folder.name} has a {WEIGHTS_FILE}"
        return _order_only(experiment, made_from, reason)
    try:
        samples = compute_samples(experiment, load_trained(folder, experiment).module, made_from)
    except FAILURES as error:
        return _order_only(experiment, made_from, f"the model or its images cannot be read: {_error_text(error)}")
    if not any(reason.startswith(_FAILED) for reason in samples.absent.values()):
        save_samples(samples, run.samples)
    return samples


def _made_from(run: RunFolder, checkpoint: Path | None) -> str:
    """Return format, step and recipe; empty if weights or recipe are missing, so that a stored file must do."""
    if checkpoint is None or not run.recipe.is_file():
        return ""
    return f"{_FORMAT} {step_of(checkpoint)} {sha256_of(run.recipe)[:16]}"


def _kept(path: Path) -> SampleArrays | None:
    if path.is_symlink() or not path.is_file():
        return None  # a link may lead anywhere, and a pipe does not end
    try:
        return read_samples(path)
    except InvalidSamples as error:
        logger.warning("{}: {}; computing it again", path.parent.name, error)
        return None


def _error_text(error: BaseException) -> str:
    return str(error) if isinstance(error, AimcoreError) else f"{type(error).__name__}: {error}"


def _order_only(experiment: Experiment, made_from: str, reason: str) -> SampleArrays:
    rows, columns = (grid := _grid(experiment)).rows, grid.columns
    order, absent = _order(experiment, grid)
    absent |= dict.fromkeys(("images", "predictions", "attention"), reason)
    return SampleArrays(made_from=made_from, rows=rows, columns=columns, **order, absent=absent)


def compute_samples(experiment: Experiment, module: ObjectiveModule, made_from: str) -> SampleArrays:
    """Compute samples with the trained ``module`` of an experiment on the CPU, for evenly spaced validation images.

    Raises:
        AimcoreError: the validation source cannot be read.
    """
    batch, grid = _batch(experiment), _grid(experiment)
    found, absent = _order(experiment, grid)
    found["images_BHWC"] = _to_uint8(batch.images, batch.images.patches_BNF, experiment.data)
    with eval_mode(module):
        for part, compute in (("predictions", _predictions), ("codes", _codes), ("attention", _attention)):
            try:
                found |= compute(experiment, module, batch)
            except NotImplementedError as error:
                absent[part] = str(error)
            except FAILURES as error:
                logger.opt(exception=error).error("{}: no {}", experiment.name, part)
                absent[part] = f"{_FAILED}{_error_text(error)}"
    return SampleArrays(made_from=made_from, rows=grid.rows, columns=grid.columns, absent=absent, **found)


def _batch(experiment: Experiment) -> Batch:
    batch = next(_batches(experiment, NUM_IMAGES), None)
    if batch is None:
        raise AimcoreError(f"none of {NUM_IMAGES} images of data.validation can be read")
    return batch


def _batches(experiment: Experiment, num_images: int) -> Iterator[Batch]:
    """Return batches of evenly spaced validation images."""
    source = experiment.data.validation.open()
    indices = np.unique(np.linspace(0, len(source) - 1, num_images).round().astype(np.int64))
    data = attrs.evolve(cast(Any, experiment.data), num_workers=0)
    size, views = experiment.trunk.patch_size, experiment.objective.views
    text, extras = experiment.objective.text, experiment.objective.extras
    return evaluation_batches(
        data, source, patch_size=size, views=views, extras=extras, text=text, indices=indices,
        batch_size=min(num_images, _COUNTED_AT_ONCE),
    )  # fmt: skip


def _grid(experiment: Experiment) -> PatchGrid:
    side = experiment.data.image_size // experiment.trunk.patch_size
    return PatchGrid(side, side)


def _order(experiment: Experiment, grid: PatchGrid) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the reading order of sample number 0, and whether others have another one; and why it is missing."""
    import torch

    size = experiment.trunk.patch_size
    blank = torch.zeros(_COMPARED, grid.num_patches, size**2 * len(experiment.data.mean))
    batch = Batch(Images(blank, (grid,) * _COMPARED, size), sample_numbers_B=torch.arange(_COMPARED))
    order_BN = experiment.objective.probe_reading(batch).order_BN
    if order_BN is None:
        return {}, {"order": f"objective {experiment.objective.name!r} has no reading order of its own"}
    return {"order_N": order_BN[0].numpy(), "order_is_own": not bool((order_BN == order_BN[0]).all())}, {}


def _predictions(experiment: Experiment, module: ObjectiveModule, batch: Batch) -> dict[str, Any]:
    predicted = module.predicted_patches(batch)
    targets = [part for part in module.modules() if isinstance(part, TargetModule)]
    return {
        "predicted_BHWC": _to_uint8(batch.images, predicted.patches_BNF, experiment.data),
        "predicted_BN": predicted.predicted_BN.numpy(),
        "uses_truth": any(_uses_truth(target, batch) for target in targets),
    }


def _codes(experiment: Experiment, module: ObjectiveModule, batch: Batch) -> dict[str, Any]:
    """Return the true codes of the pictured images as pixels, and how often each code occurs; nothing without codes."""
    import torch

    for target in (part for part in module.modules() if isinstance(part, TargetModule)):
        if target(batch).is_floating_point():
            continue
        number = target.target.num_outputs(batch.images.patch_size, batch.images.num_channels)
        counts_K = torch.zeros(number, dtype=torch.int64)
        for each in _batches(experiment, NUM_COUNTED_IMAGES):
            counts_K += target(each)[each.images.valid_BN].bincount(minlength=number)
        found: dict[str, Any] = {"code_counts_K": counts_K.numpy()}
        with suppress(NotImplementedError):
            found["decoded_BHWC"] = _to_uint8(batch.images, target.decoded(batch), experiment.data)
        return found
    return {}


def _uses_truth(target: TargetModule, batch: Batch) -> bool:
    """Return whether predictions depend on the true patches when they become pixels, found by trying other patches."""
    import torch

    images = batch.images
    outputs = target.target.num_outputs(images.patch_size, images.num_channels)
    same_BNK = torch.ones(*images.patches_BNF.shape[:2], outputs, dtype=images.patches_BNF.dtype)
    other = attrs.evolve(batch, images=attrs.evolve(images, patches_BNF=2 * images.patches_BNF + 1))
    one, two = (target.drawn(same_BNK, torch.ones_like(images.valid_BN), each) for each in (batch, other))
    return not torch.equal(one, two)


def _attention(experiment: Experiment, module: ObjectiveModule, batch: Batch) -> dict[str, Any]:
    """Return the trunk's attention as in probing, of queries at a quarter, half and the end of the reading order.

    All images are read in the drawn order, that of sample number 0, so that one order explains both figures.
    """
    images = attrs.evolve(
        batch.images,
        patches_BNF=batch.images.patches_BNF[:NUM_ATTENTION_IMAGES],
        grids=batch.images.grids[:NUM_ATTENTION_IMAGES],
    )
    first = attrs.evolve(batch, images=images, sample_numbers_B=0 * batch.sample_numbers_B[:NUM_ATTENTION_IMAGES])
    reading = frozen_reading(experiment.objective, first, experiment.probe_attention, ())
    mean_BSS = module.trunk.attention_maps(images, reading).mean(1).numpy()
    num_steps = mean_BSS.shape[1]
    if num_steps != images.grid.num_patches:
        raise NotImplementedError(f"the trunk attends between {num_steps} tokens, which are not the image's patches")
    order_S = np.arange(num_steps) if reading.order_BN is None else reading.order_BN[0].numpy()
    steps_Q = np.unique([num_steps // 4, num_steps // 2, num_steps - 1])
    if reading.attention.causal:
        mean_BSS[:, np.triu(np.ones((num_steps, num_steps), dtype=bool), 1)] = np.nan
    attention_BQN = np.empty((len(mean_BSS), len(steps_Q), num_steps), dtype=np.float16)
    attention_BQN[:, :, order_S] = mean_BSS[:, steps_Q]
    kind = experiment.probe_attention
    return {"attention_BQN": attention_BQN, "queries_Q": order_S[steps_Q], "attention_kind": kind}


def _to_uint8(images: Images, patches_BNF: Tensor, data: Data) -> Any:
    """Return pixels ``[B, H, W, C]`` before the mean and standard deviation were applied."""
    import torch

    pixels_BCHW = unpatchify(patches_BNF.float(), images.grid, images.patch_size)
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    unit_BCHW = (pixels_BCHW * std + mean).clamp(0, 1)
    return (unit_BCHW * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
