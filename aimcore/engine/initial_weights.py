"""Initial weights from files: verified by hash, names and shapes, and loaded.

Files are those of this project (safetensors), and released ones in their formats and layouts. Of a pickle only tensors
are read, and one that names anything else is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TypeVar

from loguru import logger
from torch import Tensor, nn

from aimcore.contracts.errors import LocationError
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.engine.engine_errors import WeightsChanged, WeightsNotFinite, WeightsNotFound
from aimcore.engine.freezing import names_none
from aimcore.engine.vocabularies import require_vocabulary
from aimcore.engine.weights_fit import State, differences, fitting, message, require_apart
from aimcore.experiment import Experiment, Weights
from aimcore.experiment.initialization import WHOLE
from aimcore.experiment.parameter_names import is_in
from aimcore.io.locations import local_path
from aimcore.io.run_folder import WEIGHTS_FILE, RunFolder
from aimcore.io.weight_files import StoredWeights, open_weights
from aimcore.io.weight_siblings import UnreadableWeights

T = TypeVar("T")


def hash_of(url: str) -> str:
    """Return the sha256 of the file at ``url``, in hexadecimal; for an index, that of its shards.

    Raises:
        WeightsNotFound: it cannot be read, or is no file of weights.
    """
    stored = _opened(url)
    try:
        return stored.sha256
    except UnreadableWeights as error:
        raise WeightsNotFound(url, error.problem) from error


def load_weights(experiment: Experiment, module: ObjectiveModule) -> None:
    """Load the initial weights of ``experiment`` into ``module``, in its dtypes; other parameters keep their values.

    Raises:
        WeightsNotFound: a file cannot be read, or is not a safetensors file.
        WeightsChanged: a file does not have the hash in the recipe.
        WeightsMismatch: names, shapes or kinds of numbers differ from the part of the module.
        WeightsNotFinite: a file holds values that are not finite numbers.
    """
    files = experiment.weights_by_path
    require_apart(module, files)
    given: set[str] = set()
    for weights in files.values():
        stored = _opened(_url(weights))
        _require_hash(weights, stored)
        require_vocabulary(experiment, module, weights, stored.metadata)
        state = _values(stored)
        entries = fitting(state, experiment.trunk, module, weights)
        _warn_of_unused_names(experiment, module, weights, state)
        require_finite(_url(weights), entries)
        module.load_state_dict(entries, strict=False)  # it lacks other parts, and what is fresh
        given.update(entries)
    _log_origins(experiment, module, given)


def _warn_of_unused_names(experiment: Experiment, module: nn.Module, weights: Weights, file: Iterable[str]) -> None:
    """Log names in ``fresh`` that neither the module nor the file has: a name may be misspelt."""
    prefix = "" if weights.part == WHOLE else f"{weights.part}."
    own = [name.removeprefix(prefix) for name in module.state_dict() if name.startswith(prefix)]
    for part in weights.fresh:
        if not any(is_in(name, part) for name in (*own, *file)):
            logger.warning("{}: initial_weights.fresh: {}", experiment.name, names_none(part, own))


def _log_origins(experiment: Experiment, module: nn.Module, given: Collection[str]) -> None:
    """Log how many parameters begin with weights from files, and how many with fresh ones."""
    from_files = {id(value) for name, value in module.state_dict(keep_vars=True).items() if name in given}
    fresh = [name for name, value in module.named_parameters() if id(value) not in from_files]
    total = sum(1 for _ in module.parameters())
    rest = message(f"{len(fresh)} with fresh weights", fresh) if fresh else "none with fresh weights"
    text = "{}: {} of {} parameters begin with weights from files, {}"
    logger.info(text, experiment.name, total - len(fresh), total, rest)


def check_weights(experiment: Experiment, module: ObjectiveModule, weights: Weights) -> None:
    """Check that :func:`load_weights` could load the file of ``weights``; ``module`` may be on the meta device.

    Only the header and the hash are checked; values that are not finite are found during loading.

    Raises:
        WeightsNotFound, WeightsChanged, WeightsMismatch: the file cannot be loaded.
    """
    stored = _opened(_url(weights))
    fitting(stored.tensors, experiment.trunk, module, weights)
    require_vocabulary(experiment, module, weights, stored.metadata)
    _require_hash(weights, stored)


def load_own_weights(path: Path, module: nn.Module) -> list[str]:
    """Load the weights at ``path``, which a run of the same recipe has saved, into ``module``.

    Returns:
        Differences in names, shapes and kinds of numbers; nothing is loaded if there are any.

    Raises:
        WeightsNotFound: the file cannot be read, or is no safetensors file.
        WeightsNotFinite: the file holds values that are not finite numbers.
    """
    state = _values(_opened(str(path)))
    problems = [message(*problem) for problem in differences(module.state_dict(), state)]
    if not problems:
        require_finite(str(path), state)
        module.load_state_dict(state)
    return problems


def _opened(url: str) -> StoredWeights:
    """Open a file: names and shapes are known, and what its hash and its values are read from is fetched once."""
    try:
        folder = local_path(url)
        if folder is not None and folder.is_dir():
            raise WeightsNotFound(url, _about_folder(folder))
        return open_weights(url)
    except LocationError as error:
        raise WeightsNotFound(url, str(error)) from error
    except UnreadableWeights as error:
        raise WeightsNotFound(url, error.problem) from error


def _values(stored: StoredWeights) -> State:
    try:
        return stored.load()
    except UnreadableWeights as error:
        raise WeightsNotFound(stored.url, error.problem) from error


def _about_folder(folder: Path) -> str:
    """Return why a folder cannot be read as a file, and which file in it may be meant."""
    final = RunFolder(folder).final_checkpoint()
    found = [one / WEIGHTS_FILE for one in (folder, final) if one is not None and (one / WEIGHTS_FILE).is_file()]
    return (
        f"it is a folder: use its file {found[0]}" if found else f"it is a folder, and no file {WEIGHTS_FILE} is in it"
    )


def require_finite(url: str, state: State) -> None:
    """Refuse weights that are not finite numbers: training or probing with them would be meaningless.

    Raises:
        WeightsNotFinite: some values are not finite; lists all tensors that hold such values, with their number.
    """
    found = {name: (_num_not_finite(value), value.numel()) for name, value in state.items()}
    wrong = {name: numbers for name, numbers in found.items() if numbers[0]}
    if wrong:
        raise WeightsNotFinite(url, wrong)


def _num_not_finite(value: Tensor) -> int:
    """Return how many values are not finite in float32, the dtype in which modules are built."""
    if not (value.is_floating_point() or value.is_complex()):
        return 0
    as_built = value.float() if value.is_floating_point() else value
    return int((~as_built.isfinite()).sum())


def _require_hash(weights: Weights, stored: StoredWeights) -> None:
    found = stored.sha256 if weights.sha256 is not None else None
    if found != weights.sha256:
        raise WeightsChanged(
            f"initial weights: {weights.url} has sha256 {found}, the recipe names {weights.sha256}. Give the file that "
            "was meant, or change initial_weights.sha256"
        )


def _url(weights: Weights) -> str:
    """Return the URL of the file; that of an earlier experiment is known only when its study reaches this one."""
    if weights.url is None:
        raise WeightsNotFound(f"experiment {weights.experiment!r}", "it is found only where a study is run")
    return weights.url
