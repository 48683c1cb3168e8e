"""How large should the MLP head be? AIM, arXiv:2401.08541, Tables 4a and 4b.

    python -m aimcore.run examples/aim_head_size.py                     # two cores, several minutes
    python -m aimcore.run examples/aim_head_size.py --scale paper --dry-run

Widths at the full depth, and depths at the full width; the default has both. At ``small`` the head is three times as
deep as in the other studies, so that it can be made shallower.
"""

from aim_settings import experiment, head, next_patch, rows, source

from aimcore import Scale, Study

PAPER = rows(
    {
        "default": (70.0, 78.2),
        "quarter-width": (69.4, 77.7), "half-width": (69.6, 78.1),
        "half-depth": (65.3, 76.2), "two-thirds-depth": (68.1, 77.1),
    }
)  # fmt: skip
FACTORS = {
    "default": {},
    "quarter-width": {"width": 1 / 4}, "half-width": {"width": 1 / 2},
    "half-depth": {"depth": 1 / 2}, "two-thirds-depth": {"depth": 2 / 3},
}  # fmt: skip
"""Of width 2048 and depth 12: widths 512 and 1024, depths 6 and 8."""


def study(scale: Scale) -> Study:
    """The columns of Tables 4a and 4b, which share their default."""
    deeper = 1.0 if scale == "paper" else 3.0
    experiments = []
    for name, factors in FACTORS.items():
        sized = head(scale, width=factors.get("width", 1.0), depth=deeper * factors.get("depth", 1.0))
        experiments.append(experiment(name, scale, objective=next_patch(scale, head_of=sized)))
    return Study(name="aim-head-size", source=source("Tables 4a and 4b", scale), experiments=experiments, paper=PAPER)
