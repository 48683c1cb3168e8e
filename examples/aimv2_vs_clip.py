"""AIMv2 against contrastive training and CapPa. AIMv2, arXiv:2411.14402, Table 9b.

    python -m aimcore.run examples/aimv2_vs_clip.py                     # two cores, a few minutes
    python -m aimcore.run examples/aimv2_vs_clip.py --scale paper --dry-run

All rows see the same number of pairs; CLIP with twice the batch takes half the steps. Beside the paper's columns,
retrieval among emoji of concepts that training never saw.

The paper does not say how its CLIP was trained. Its rows have AIMv2's optimiser here, so that rows differ in their
objective alone: an ASSUMPTION. The CLIP configuration that the authors released has another one (coupled AdamW with
decay 0.2, no clipping, warm-up over 5 % of the steps, cosine to 1e-6): ``clip-released-optimizer`` is the first row
with that, and no row of the paper. That configuration also embeds images by a class token and one bias-free linear
layer, which is not offered: these rows pool by attention as the released LiT model does.
"""

import attrs
from aimv2_settings import cappa, contrastive, experiment, multimodal, optimizer, retrieval, rows

from aimcore import Experiment, Scale, Study
from aimcore_trunks import clip_optimizer, clip_schedule

PAPER = rows(
    {
        "clip": (84.6, 74.1, 24.6),
        "clip-large-batch": (85.2, 74.8, 26.3),
        "cappa": (84.7, 75.1, 30.6),
        "aimv2": (85.6, 76.9, 37.5),
    }
)


def study(scale: Scale) -> Study:
    """The four rows of Table 9b, batches of 8k but for CLIP's second row (16k); and CLIP with its own optimiser."""
    measured = retrieval(scale)
    clip = experiment("clip", contrastive(scale), scale, evaluations=measured)
    experiments = [
        clip,
        experiment("clip-large-batch", contrastive(scale), scale, batch_factor=2, evaluations=measured),
        experiment("cappa", cappa(scale), scale, evaluations=measured),
        experiment("aimv2", multimodal(scale), scale, evaluations=measured),
        released_optimizer(clip, scale),
    ]
    source = "arXiv:2411.14402, Table 9b; the optimiser and the pooling of its CLIP rows are ASSUMPTIONS"
    return Study(name="aimv2-vs-clip", source=source, experiments=experiments, paper=PAPER)


def released_optimizer(clip: Experiment, scale: Scale) -> Experiment:
    """CLIP with the optimiser and schedule of the configuration that AIMv2's authors released."""
    as_released = clip_optimizer()
    if scale != "paper":  # with the rate of the other rows, which suits these widths
        as_released = attrs.evolve(as_released, peak_lr=optimizer(scale).peak_lr)
    schedule = clip_schedule(clip.num_steps)
    return attrs.evolve(clip, name="clip-released-optimizer", optimizer=as_released, schedule=schedule)
