"""Do larger encoders and larger images help each other? AIMv2, arXiv:2411.14402, Figure 3 and Table B2 (IN-1k).

    python -m aimcore.run examples/aimv2_high_resolution.py             # two cores, a few minutes
    python -m aimcore.run examples/aimv2_high_resolution.py --scale paper --dry-run

Each size is pre-trained at 224 px, and from there adapted to 336 and to 448 px. ``small`` has two widths at 32, 48 and
64 px; see ``aimv2_sizes.py``, also for what of the adaptation is an ASSUMPTION.
"""

from aimv2_sizes import adapted, pretrained

from aimcore import Scale, Study

FACTORS = {"1.5x": 1.5, "2x": 2.0}
PAPER = {
    "L-1x": 0.866, "L-1.5x": 0.876, "L-2x": 0.879,
    "H-1x": 0.875, "H-1.5x": 0.882, "H-2x": 0.886,
    "1B-1x": 0.881, "1B-1.5x": 0.887, "1B-2x": 0.890,
    "3B-1x": 0.885, "3B-1.5x": 0.892, "3B-2x": 0.895,
}  # fmt: skip
"""Attentive probe on IN-1k: 224, 336 and 448 px."""


def study(scale: Scale) -> Study:
    """Every size at every resolution; two sizes where minutes count."""
    experiments = []
    for size in ("L", "H", "1B", "3B") if scale == "paper" else ("L", "H"):
        experiments.append(pretrained(scale, f"{size}-1x", size=size))
        experiments += [
            adapted(scale, f"{size}-{name}", f"{size}-1x", factor, size=size) for name, factor in FACTORS.items()
        ]
    known = {one.name: {"attentive": PAPER[one.name]} for one in experiments}
    source = "arXiv:2411.14402, Figure 3 and Table B2; length and rates of the adaptation are ASSUMPTIONS"
    return Study(name="aimv2-high-resolution", source=source, experiments=experiments, paper=known)
