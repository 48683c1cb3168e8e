"""Initial weights from files: verified by hash, names and shapes, and loaded.

Files are those of this project (safetensors), and released ones in their formats and layouts. Of a pickle only tensors
are read, and one that names anything else is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TypeVar

from loguru import logger
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from aimcore.contracts.errors import AimcoreError, LocationError
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.engine.engine_errors import WeightsChanged, WeightsNotFinite, WeightsNotFound
from aimcore.engine.freezing import names_none
from aimcore.engine.vocabularies import require_vocabulary
from aimcore.engine.weights_fit import State, differences, fitting, message, require_apart
from aimcore.experiment import Experiment, Weights
from aimcore.experiment.initialization import WHOLE
from aimcore.experiment.parameter_names import is_in
from aimcore.io.fetched_files import FetchedFile, read_with
from aimcore.io.locations import local_path, with_store_errors
from aimcore.io.run_folder import WEIGHTS_FILE, RunFolder
from aimcore.io.tensor_files import NotSafetensors, TensorHeader, read_header
from aimcore.io.weight_files import INDEX_SUFFIX, StoredWeights, open_weights
from aimcore.io.weight_siblings import UnreadableWeights, path_of

T = TypeVar("T")


def hash_of(url: str) -> str:
    """Return the sha256 of the file at ``url``, in hexadecimal.

    Raises:
        WeightsNotFound: it cannot be read.
    """
    # An index names the shards; its own hash would not change with them.
    return _of_index(url) if path_of(url).endswith(INDEX_SUFFIX) else _of_file(url, lambda file: file.size_and_hash[1])


def _of_index(url: str) -> str:
    try:
        return open_weights(url).sha256
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
        _require_hash(weights)
        require_vocabulary(experiment, module, weights, _header(_url(weights)).metadata)
        state = _state(_url(weights))
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
    header = _header(_url(weights))
    fitting(header.tensors, experiment.trunk, module, weights)
    require_vocabulary(experiment, module, weights, header.metadata)
    _require_hash(weights)


def load_own_weights(path: Path, module: nn.Module) -> list[str]:
    """Load the weights at ``path``, which a run of the same recipe has saved, into ``module``.

    Returns:
        Differences in names, shapes and kinds of numbers; nothing is loaded if there are any.

    Raises:
        WeightsNotFound: the file cannot be read, or is no safetensors file.
        WeightsNotFinite: the file holds values that are not finite numbers.
    """
    state = _state(str(path))
    problems = [message(*problem) for problem in differences(module.state_dict(), state)]
    if not problems:
        require_finite(str(path), state)
        module.load_state_dict(state)
    return problems


def _state(url: str) -> State:
    """Return the entries of a file, after its names and shapes are validated."""
    header = _header(url)
    if isinstance(header, StoredWeights):
        return header.load()
    try:
        # The file is mapped into memory, and only what is copied out of it is read.
        return _of_file(url, lambda file: load_file(file.path))
    except SafetensorError as error:
        raise WeightsNotFound(url, f"it is no safetensors file, or a damaged one: {error}") from error


def _of_file(url: str, use: Callable[[FetchedFile], T]) -> T:
    return _translated(url, lambda: use(FetchedFile(url)))


def _translated(url: str, read: Callable[[], T]) -> T:
    """Return what ``read`` returns, and translate what file systems raise."""
    try:
        return read()
    except LocationError as error:
        raise WeightsNotFound(url, str(error)) from error
    except IsADirectoryError as error:
        raise WeightsNotFound(url, _about_folder(url)) from error
    except with_store_errors(OSError, ValueError, ImportError) as error:
        if isinstance(error, AimcoreError):
            raise
        raise WeightsNotFound(url, f"{type(error).__name__}: {error}") from error


def _about_folder(url: str) -> str:
    """Return why the folder at ``url`` cannot be read as a file, and which file in it may be meant."""
    path = local_path(url)
    if path is None:
        return "it is a folder"
    folder = Path(path)
    final = RunFolder(folder).final_checkpoint()
    found = [one / WEIGHTS_FILE for one in (folder, final) if one is not None and (one / WEIGHTS_FILE).is_file()]
    return (
        f"it is a folder: use its file {found[0]}" if found else f"it is a folder, and no file {WEIGHTS_FILE} is in it"
    )


def _header(url: str) -> TensorHeader | StoredWeights:
    """Return the header of the safetensors file at ``url``, or the opened file if it has another format."""
    try:
        return _translated(url, lambda: read_with(url, read_header))
    except NotSafetensors as error:
        try:
            return open_weights(url)
        except UnreadableWeights as other:
            why = "" if str(error) in other.problem else f"; nor can it be read in another format: {other.problem}"
            raise WeightsNotFound(url, f"it is no safetensors file, or a damaged one: {error}{why}") from error


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


def _require_hash(weights: Weights) -> None:
    found = hash_of(_url(weights)) if weights.sha256 is not None else None
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
