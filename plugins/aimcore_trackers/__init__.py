"""Built-in trackers: where a run's metrics go besides its own ``metrics.jsonl``."""

from aimcore import Tracker, hookimpl
from aimcore_trackers.json_lines import JSONLines

__all__ = ["JSONLines", "trackers"]


@hookimpl
def trackers() -> list[type[Tracker]]:
    """The trackers of this package."""
    return [JSONLines]
