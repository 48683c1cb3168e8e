"""The optional library pyarrow, which reads and writes Parquet files."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from aimcore.contracts.errors import AimcoreError


class MissingPyarrow(AimcoreError):
    """The optional library pyarrow is needed, and cannot be imported."""


def require_pyarrow() -> Any:
    """Return the module ``pyarrow``.

    Raises:
        MissingPyarrow: it is not installed.
    """
    try:
        import_module("pyarrow.parquet")
        return import_module("pyarrow")
    except ImportError as cause:
        raise MissingPyarrow(
            f"Parquet files need the package pyarrow ({cause}): pip install 'aimcore[parquet]', or use *.zarr"
        ) from cause
