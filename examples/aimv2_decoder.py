"""Which multimodal decoder? AIMv2, arXiv:2411.14402, Tables 9d, 9e and 9f.

    python -m aimcore.run examples/aimv2_decoder.py                     # two cores, several minutes
    python -m aimcore.run examples/aimv2_decoder.py --scale paper --dry-run

The default (joint, 1024 wide, 12 deep) is one row of all three tables and is trained once. Below the paper's scale
the default is smaller, and widths and depths are the same multiples of it.
"""

from aimv2_settings import experiment, multimodal, rows

from aimcore import Scale, Study

PAPER = rows(
    {
        "default": (85.6, 76.9, 37.5),
        "separate": (85.6, 77.1, 37.2),
        "half-width": (85.3, 76.2, 35.9),
        "one-and-a-half-width": (85.1, 76.9, 36.9),
        "two-thirds-depth": (85.5, 76.7, 37.0),
        "four-thirds-depth": (85.6, 76.9, 36.6),
    }
)
"""Widths 512 and 1536, depths 8 and 16."""


def study(scale: Scale) -> Study:
    """The default, two dedicated decoders, two other widths and two other depths."""
    objectives = {
        "default": multimodal(scale),
        "separate": multimodal(scale, kind="separate"),
        "half-width": multimodal(scale, width=1 / 2),
        "one-and-a-half-width": multimodal(scale, width=3 / 2),
        "two-thirds-depth": multimodal(scale, depth=2 / 3),
        "four-thirds-depth": multimodal(scale, depth=4 / 3),
    }
    experiments = [experiment(name, objective, scale) for name, objective in objectives.items()]
    return Study(name="aimv2-decoder", source="arXiv:2411.14402, Tables 9d-f", experiments=experiments, paper=PAPER)
