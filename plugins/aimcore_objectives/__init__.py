"""Built-in objectives."""

from collections.abc import Sequence

from aimcore import Objective, hookimpl
from aimcore_objectives.next_patch import NextPatch


@hookimpl
def objectives() -> Sequence[type[Objective]]:
    """AIM's next-patch prediction."""
    return [NextPatch]


__all__ = ["NextPatch"]
