"""Should an encoder of a given size be deep or wide? AIM, arXiv:2401.08541, Table 3f.

    python -m aimcore.run examples/aim_deep_vs_wide.py                  # two cores, a few minutes
    python -m aimcore.run examples/aim_deep_vs_wide.py --scale paper --dry-run

The wide encoder is AIM-0.6B: 24 blocks of width 1536. The shape of the deep one is published nowhere: ours has 54
blocks of width 1024, which have exactly as many parameters in their matrices, an ASSUMPTION. At ``small``, 4 blocks of
width 128 are compared with 16 of width 64.
"""

from aim_settings import encoder, experiment, rows, source

from aimcore import Scale, Study

PAPER = rows({"deep": (68.8, 77.9), "wide": (70.0, 78.2)})


def study(scale: Scale) -> Study:
    """The two columns of Table 3f."""
    width = 2 / 3 if scale == "paper" else 1 / 2
    trunks = {"deep": encoder(scale, width=width, depth=width**-2), "wide": encoder(scale)}
    experiments = [experiment(name, scale, trunk=trunk) for name, trunk in trunks.items()]
    where = source("Table 3f", scale)
    if scale == "paper":
        where += "; so is the shape of the deep encoder"
    return Study(name="aim-deep-vs-wide", source=where, experiments=experiments, paper=PAPER)
