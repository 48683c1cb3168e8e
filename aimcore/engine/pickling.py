"""How values in DeepSpeed's files are pickled: alike on every Python."""

from __future__ import annotations

import copyreg
from typing import Any


def pickle_stages_by_value() -> None:
    """Have ZeRO stages pickled as a call of their class, as from Python 3.11.4 on.

    Before, an enumeration's members were pickled as a call of ``getattr``, and a checkpoint that may call ``getattr``
    may call anything: it would be refused when it is read.
    """
    from deepspeed.runtime.zero.config import ZeroStageEnum

    copyreg.pickle(ZeroStageEnum, _by_value)


def _by_value(stage: Any) -> tuple[type[Any], tuple[int]]:
    return type(stage), (int(stage.value),)
