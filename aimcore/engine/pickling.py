"""Pickling of enumerations in DeepSpeed's files, in the same way on every version of Python."""

from __future__ import annotations

import copyreg
from typing import Any


def pickle_stages_by_value() -> None:
    """Make ZeRO stages pickle as a call of their class, as Python 3.11.4 and later do.

    Earlier versions pickle members of an enumeration as a call of ``getattr``. A checkpoint that may call ``getattr``
    may call any function, so it would be refused when it is read.
    """
    from deepspeed.runtime.zero.config import ZeroStageEnum

    copyreg.pickle(ZeroStageEnum, _by_value)


def _by_value(stage: Any) -> tuple[type[Any], tuple[int]]:
    return type(stage), (int(stage.value),)
