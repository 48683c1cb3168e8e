"""Zero-shot classification after locked-image tuning. AIMv2, arXiv:2411.14402, section 4.1 and Table 5.

    python -m aimcore.run examples/aimv2_lit.py                         # two cores, a few minutes
    python -m aimcore.run examples/aimv2_lit.py --scale paper --dry-run

Encoders are trained first, with captions alone, with CapPa or as AIMv2; then each is frozen, and a text tower and an
attention pool learn to match it (LiT, arXiv:2111.07991): the contrastive objective with ``frozen=("trunk",)``, from the
first run's weights. Not run: AIMv2 on 12 billion pairs (77.0), OpenAI's CLIP (75.5) and SigLIP (80.4).
"""

from aimv2_settings import cappa, captioning, contrastive, experiment, multimodal, retrieval, zero_shot

from aimcore import Scale, Study, Weights

PAPER = {
    "cap-lit": {"zero_shot/top1": 0.750},
    "aimv2-lit": {"zero_shot/top1": 0.753},
    "cappa-lit": {"zero_shot/top1": 0.764},
}
"""Cap and AIMv2 on 2 billion pairs; CapPa on 9 billion, as published by its authors."""
NUM_PAIRS = {"cap": 2e9, "aimv2": 2e9, "cappa": 9e9}
LIT_PAIRS = 3e9


def study(scale: Scale) -> Study:
    """Each encoder, and its tuning."""
    objectives = {"cap": captioning(scale, "prefix"), "aimv2": multimodal(scale), "cappa": cappa(scale)}
    experiments = []
    for name, objective in objectives.items():
        experiments.append(experiment(name, objective, scale, num_pairs=NUM_PAIRS[name]))
        experiments.append(
            experiment(
                f"{name}-lit",
                contrastive(scale),
                scale,
                num_pairs=LIT_PAIRS,
                initial_weights=Weights(experiment=name),
                frozen=("trunk",),
                evaluations=(*zero_shot(scale), *retrieval(scale)),
                probed=False,
            )
        )
    return Study(name="aimv2-lit", source="arXiv:2411.14402, Table 5", experiments=experiments, paper=PAPER)
