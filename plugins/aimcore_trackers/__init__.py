"""Built-in trackers: where a run's metrics go besides its own ``metrics.jsonl``.

TensorBoard's and Weights & Biases' are plugins of their own, in modules of this package: they need extras.
"""

from aimcore import Tracker, hookimpl
from aimcore_trackers.json_lines import JSONLines

__all__ = ["JSONLines", "trackers"]


@hookimpl
def trackers() -> list[type[Tracker]]:
    """The trackers of this package."""
    return [JSONLines]
