"""Export of a run's trunk: one safetensors file, without the objective's other parts."""

from __future__ import annotations

from pathlib import Path

from loguru import logger
from safetensors import SafetensorError
from safetensors.torch import save_file

from aimcore.contracts.trunks import Trunk
from aimcore.io.atomic_files import CannotWrite, replacing, require_new, sha256_of
from aimcore.running.trained_model import load_trained


def export_trunk(run: Path, file: Path) -> Trunk:
    """Write the trained trunk of ``run`` to ``file``: its weights in float32, by the names of a plain trunk.

    Weights that can be merged into a plain trunk are merged (``Trunk.export``), such as those of LoRA. Other runs read
    the file as ``initial_weights``.

    Returns:
        The trunk that has these weights.

    Raises:
        FileExists: there is such a file already.
        CannotWrite: the file cannot be written.
        AimcoreError: the run has no trained weights, see :func:`~aimcore.running.trained_model.load_trained`.
    """
    require_new(file)
    trained = load_trained(run)
    trunk, state = trained.experiment.trunk.export(trained.module.trunk)
    with replacing(file) as partial:
        try:
            save_file({name: value.detach().contiguous() for name, value in state.items()}, partial)
        except SafetensorError as error:  # a full disk raises this too
            raise CannotWrite.because(file, error) from error
    logger.info("{}: {} tensors of trunk {!r}, sha256 {}", file, len(state), trunk.name, sha256_of(file))
    return trunk
