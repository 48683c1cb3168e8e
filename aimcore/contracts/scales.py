"""The scales of a study."""

from typing import Literal

Scale = Literal["smoke", "small", "paper"]
SCALES: tuple[Scale, ...] = ("smoke", "small", "paper")
"""How large a study runs: seconds on any machine, minutes on two cores, or the paper's own size."""
