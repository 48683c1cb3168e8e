"""Does the image loss help as data and model grow? AIMv2, arXiv:2411.14402, section 3.2 and Figure 4.

    python -m aimcore.run examples/aimv2_vs_captioning.py               # two cores, several minutes
    python -m aimcore.run examples/aimv2_vs_captioning.py --scale paper --dry-run

AIMv2 against captioning alone, both with a prefix-causal encoder. The setup is section 3.2's (ViT-H, 2 billion pairs,
cosine); the figure's points are drawn, not printed, so there are no scores of the paper to compare with, and the
amounts of data (a quarter, half, all of the pairs) and the sizes (L, H, 1B) along its axes are an ASSUMPTION. Below the
paper's scale the encoder stays the same, and only the data varies.
"""

from aimv2_settings import ABLATION_PAIRS, captioning, experiment, multimodal

from aimcore import Experiment, Scale, Study
from aimcore_trunks import AIMv2Size

SHARES = (0.25, 0.5, 1.0)
"""Of the pairs, with ViT-H."""
SIZES: tuple[AIMv2Size, ...] = ("L", "1B")
"""Other sizes, with all pairs."""


def both(suffix: str, scale: Scale, size: AIMv2Size, share: float) -> list[Experiment]:
    """AIMv2 and captioning alone, otherwise alike."""
    objectives = {"aimv2": multimodal(scale), "cap": captioning(scale, "prefix")}
    return [
        experiment(
            f"{name}-{suffix}", objective, scale, size=size, num_pairs=share * ABLATION_PAIRS, share_of_steps=share
        )
        for name, objective in objectives.items()
    ]


def study(scale: Scale) -> Study:
    """Pairs of runs over amounts of data and, at the paper's scale, over sizes."""
    experiments = [one for share in SHARES for one in both(f"data-{share:g}", scale, "H", share)]
    if scale == "paper":
        experiments += [one for size in SIZES for one in both(size, scale, size, 1.0)]
    source = "arXiv:2411.14402, section 3.2 and Figure 4; its axes' values are an ASSUMPTION"
    return Study(name="aimv2-vs-captioning", source=source, experiments=experiments)
