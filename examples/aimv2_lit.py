"""Zero-shot classification after locked-image tuning. AIMv2, arXiv:2411.14402, section 4.1 and Table 5.

    python -m aimcore.run examples/aimv2_lit.py                         # two cores, about ten minutes
    python -m aimcore.run examples/aimv2_lit.py --scale paper --dry-run

Encoders are trained first, with captions alone, with CapPa or as AIMv2; then each is frozen, and a text tower and an
attention pool learn to match it (LiT, arXiv:2111.07991): the contrastive objective with ``frozen=("trunk",)``, from the
first run's weights. CLIP and SigLIP match images and captions from the beginning.

Of the tuning the paper gives the pairs, 3 billion, and the released model its towers. Batch, rate and schedule are
published nowhere: ours are those of pre-training, an ASSUMPTION. The scores of CapPa, CLIP and SigLIP were published by
their authors, for encoders and data of their own; here they have AIMv2's, another ASSUMPTION. Below the paper's scale
``aimv2-long`` takes twice the steps, and everything else equally many.
"""

from aimv2_settings import cappa, captioning, contrastive, experiment, multimodal, retrieval, zero_shot

from aimcore import Evaluation, Experiment, Scale, Study, Weights

PAPER = {
    "cap-lit": 0.750, "aimv2-lit": 0.753, "cappa-lit": 0.764, "aimv2-long-lit": 0.770, "clip": 0.755, "siglip": 0.804,
}  # fmt: skip
"""IN-1k top-1, column by column."""
NUM_PAIRS = {"cap": 2e9, "aimv2": 2e9, "cappa": 9e9, "aimv2-long": 12e9, "clip": 13e9, "siglip": 40e9}
LIT_PAIRS = 3e9
SHARE_OF_STEPS = {"aimv2-long": 2.0}
"""Below the paper's scale; 1 for all others."""


def evaluations(scale: Scale) -> tuple[Evaluation, ...]:
    """What is measured of whatever tells captions apart."""
    return *zero_shot(scale), *retrieval(scale)


def tuned(scale: Scale) -> list[Experiment]:
    """Each encoder, and its tuning."""
    objectives = {
        "cap": captioning(scale, "prefix"),
        "aimv2": multimodal(scale),
        "cappa": cappa(scale),
        "aimv2-long": multimodal(scale),
    }
    experiments = []
    for name, objective in objectives.items():
        share = SHARE_OF_STEPS.get(name, 1.0)
        experiments.append(experiment(name, objective, scale, num_pairs=NUM_PAIRS[name], share_of_steps=share))
        experiments.append(
            experiment(
                f"{name}-lit",
                contrastive(scale),
                scale,
                num_pairs=LIT_PAIRS,
                initial_weights=Weights(experiment=name),
                frozen=("trunk",),
                evaluations=evaluations(scale),
                probed=False,
            )
        )
    return experiments


def study(scale: Scale) -> Study:
    """The six columns of Table 5."""
    matched = {"clip": contrastive(scale), "siglip": contrastive(scale, "sigmoid")}
    experiments = tuned(scale) + [
        experiment(name, one, scale, num_pairs=NUM_PAIRS[name], evaluations=evaluations(scale), probed=False)
        for name, one in matched.items()
    ]
    source = "arXiv:2411.14402, Table 5; batch, rate and schedule of the tuning, of CLIP and of SigLIP are ASSUMPTIONS"
    paper = {name: {"zero_shot/top1": score} for name, score in PAPER.items()}
    return Study(name="aimv2-lit", source=source, experiments=experiments, paper=paper)
