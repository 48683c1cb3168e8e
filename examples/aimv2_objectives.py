"""What does each part of AIMv2's objective bring? AIMv2, arXiv:2411.14402, Table 9a.

    python -m aimcore.run examples/aimv2_objectives.py                  # two cores, a few minutes
    python -m aimcore.run examples/aimv2_objectives.py --scale paper --dry-run

Images alone (AIM), captions alone (Cap) with a bidirectional or a prefix-causal encoder, and both (AIMv2). For AIM the
paper gives no head: ours is AIM's own. Probes attend bidirectionally, as encoders with a prefix allow.
"""

from aimv2_settings import captioning, experiment, multimodal, next_patch, rows

from aimcore import Scale, Study

PAPER = rows(
    {
        "aim-prefix": (72.0, 65.4, 12.7),
        "cap-bidirectional": (85.1, 76.2, 34.4),
        "cap-prefix": (85.4, 76.8, 36.5),
        "aimv2-prefix": (85.6, 76.9, 37.5),
    }
)


def study(scale: Scale) -> Study:
    """The four rows of Table 9a."""
    objectives = {
        "aim-prefix": next_patch(scale),
        "cap-bidirectional": captioning(scale, "bidirectional"),
        "cap-prefix": captioning(scale, "prefix"),
        "aimv2-prefix": multimodal(scale),
    }
    experiments = [experiment(name, objective, scale) for name, objective in objectives.items()]
    return Study(name="aimv2-objectives", source="arXiv:2411.14402, Table 9a", experiments=experiments, paper=PAPER)
