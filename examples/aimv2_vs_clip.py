"""AIMv2 against contrastive training and CapPa. AIMv2, arXiv:2411.14402, Table 9b.

    python -m aimcore.run examples/aimv2_vs_clip.py                     # two cores, a few minutes
    python -m aimcore.run examples/aimv2_vs_clip.py --scale paper --dry-run

All rows see the same number of pairs; CLIP with twice the batch takes half the steps. Beside the paper's columns,
retrieval among emoji of concepts that training never saw.
"""

from aimv2_settings import cappa, contrastive, experiment, multimodal, retrieval, rows

from aimcore import Scale, Study

PAPER = rows(
    {
        "clip": (84.6, 74.1, 24.6),
        "clip-large-batch": (85.2, 74.8, 26.3),
        "cappa": (84.7, 75.1, 30.6),
        "aimv2": (85.6, 76.9, 37.5),
    }
)


def study(scale: Scale) -> Study:
    """The four rows of Table 9b: batches of 8k, but for CLIP's second row (16k)."""
    measured = retrieval(scale)
    experiments = [
        experiment("clip", contrastive(scale), scale, evaluations=measured),
        experiment("clip-large-batch", contrastive(scale), scale, batch_factor=2, evaluations=measured),
        experiment("cappa", cappa(scale), scale, evaluations=measured),
        experiment("aimv2", multimodal(scale), scale, evaluations=measured),
    ]
    return Study(name="aimv2-vs-clip", source="arXiv:2411.14402, Table 9b", experiments=experiments, paper=PAPER)
