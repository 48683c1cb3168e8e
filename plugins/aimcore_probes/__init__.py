"""Built-in probes: classifiers on the frozen trunk."""

from collections.abc import Sequence

from aimcore import Probe, hookimpl
from aimcore_probes.attentive import AttentiveProbe
from aimcore_probes.grid_probe import PAPERS_AUGMENTATION
from aimcore_probes.knn import KNNProbe
from aimcore_probes.linear import LinearProbe
from aimcore_probes.linear_tokens import LinearTokensProbe

__all__ = ["PAPERS_AUGMENTATION", "AttentiveProbe", "KNNProbe", "LinearProbe", "LinearTokensProbe"]


@hookimpl
def probes() -> Sequence[type[Probe]]:
    """Supply the probes of this package."""
    return [AttentiveProbe, KNNProbe, LinearProbe, LinearTokensProbe]
