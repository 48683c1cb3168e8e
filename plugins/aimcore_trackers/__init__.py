"""Built-in trackers: receivers of a run's metrics in addition to its own ``metrics.jsonl``, and a time budget.

TensorBoard and Weights & Biases are plugins of their own, in modules of this package, because they require extras.
"""

from aimcore import Tracker, hookimpl
from aimcore_trackers.json_lines import JSONLines
from aimcore_trackers.time_budget import TimeBudget

__all__ = ["JSONLines", "TimeBudget", "trackers"]


@hookimpl
def trackers() -> list[type[Tracker]]:
    """Supply the trackers of this package."""
    return [JSONLines, TimeBudget]
