"""What should be predicted of a patch? AIM, arXiv:2401.08541, Table 3a.

    python -m aimcore.run examples/aim_targets.py                       # two cores, a few minutes
    python -m aimcore.run examples/aim_targets.py --scale paper --dry-run

Losses of different targets are in different units, so that only probes can be compared.
"""

from aim_settings import experiment, next_patch, rows, source

from aimcore import Scale, Study, Target
from aimcore_targets import NormalizedPixels, Pixels

PAPER = rows({"pixels": (67.5, 76.2), "normalized-pixels": (70.0, 78.2)})


def study(scale: Scale) -> Study:
    """The columns of Table 3a."""
    targets: dict[str, Target] = {"pixels": Pixels(), "normalized-pixels": NormalizedPixels()}
    experiments = [experiment(name, scale, objective=next_patch(scale, target=one)) for name, one in targets.items()]
    return Study(name="aim-targets", source=source("Table 3a", scale), experiments=experiments, paper=PAPER)
