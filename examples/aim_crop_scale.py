"""How much of an image should a training crop cover? AIM, arXiv:2401.08541, Table 3c.

    python -m aimcore.run examples/aim_crop_scale.py                    # two cores, a few minutes
    python -m aimcore.run examples/aim_crop_scale.py --scale paper --dry-run

Small crops make neighbouring patches alike, so that the next one is easy to predict; crops of the whole image let a
model overfit a data set of the size of ImageNet.
"""

from aim_settings import experiment, rows, source

from aimcore import Scale, Study

LOWEST = (0.08, 0.4, 1.0)
PAPER = rows({"crop-scale-0.08": (68.4, 77.7), "crop-scale-0.4": (70.0, 78.2), "crop-scale-1.0": (49.6, 63.5)})


def study(scale: Scale) -> Study:
    """The three columns of Table 3c: the smallest share of an image that a crop covers."""
    experiments = [experiment(f"crop-scale-{low}", scale, crop_scale=(low, 1.0)) for low in LOWEST]
    return Study(name="aim-crop-scale", source=source("Table 3c", scale), experiments=experiments, paper=PAPER)
