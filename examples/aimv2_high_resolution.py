"""Do larger encoders and larger images help each other? AIMv2, arXiv:2411.14402, Figure 3 and Table B2 (IN-1k).

    python -m aimcore.run examples/aimv2_high_resolution.py             # two cores, a few minutes
    python -m aimcore.run examples/aimv2_high_resolution.py --scale paper --dry-run

Each size is pre-trained at 224 px, and from there adapted to 336 and to 448 px. ``small`` has two widths at 32, 48 and
64 px; see ``aimv2_sizes.py``, also for what of the adaptation is an ASSUMPTION. Of the table's 14 data sets one is
probed, ImageNet; what the paper has for the others reads "not run".
"""

from aimv2_sizes import adapted, pretrained

from aimcore import Scale, Study

FACTORS = {"1.5x": 1.5, "2x": 2.0}
COLUMNS = (
    "attentive", "iNAT-18", "CIFAR-10", "CIFAR-100", "Food101", "DTD", "Pets", "Cars", "CAM17", "PCAM", "RxRx1",
    "EuroSAT", "fMoW", "Infographic",
)  # fmt: skip
"""Table B2's: the attentive probe on IN-1k, and on 13 data sets that are not probed here."""
PAPER = {
    "L-1x": (86.6, 76.0, 99.1, 92.2, 95.7, 87.9, 96.3, 96.3, 93.7, 89.3, 5.6, 98.4, 60.7, 69.0),
    "H-1x": (87.5, 77.9, 99.3, 93.5, 96.3, 88.2, 96.6, 96.4, 93.3, 89.3, 5.8, 98.5, 62.2, 70.4),
    "1B-1x": (88.1, 79.7, 99.4, 94.1, 96.7, 88.4, 96.8, 96.5, 94.2, 89.0, 6.7, 98.8, 63.2, 71.7),
    "3B-1x": (88.5, 81.5, 99.5, 94.3, 96.8, 88.9, 97.1, 96.5, 93.5, 89.4, 7.3, 99.0, 64.2, 72.2),
    "L-1.5x": (87.6, 79.7, 99.1, 92.5, 96.3, 88.5, 96.4, 96.7, 93.8, 89.4, 6.7, 98.4, 62.1, 71.7),
    "H-1.5x": (88.2, 81.0, 99.3, 93.6, 96.6, 88.8, 96.8, 96.4, 93.3, 89.4, 7.2, 98.7, 63.9, 73.4),
    "1B-1.5x": (88.7, 82.7, 99.4, 93.9, 97.1, 88.9, 96.9, 96.5, 94.2, 89.5, 8.4, 98.9, 65.1, 73.7),
    "3B-1.5x": (89.2, 84.4, 99.5, 94.4, 97.2, 89.3, 97.2, 96.6, 93.2, 89.3, 8.8, 99.0, 65.7, 74.0),
    "L-2x": (87.9, 81.3, 99.1, 92.4, 96.6, 88.9, 96.5, 96.6, 94.1, 89.6, 7.4, 98.6, 62.8, 72.7),
    "H-2x": (88.6, 82.8, 99.4, 93.6, 97.0, 88.9, 96.8, 96.5, 93.4, 89.6, 7.8, 98.7, 64.8, 74.5),
    "1B-2x": (89.0, 83.8, 99.4, 94.1, 97.2, 88.9, 97.1, 96.6, 93.5, 89.9, 9.2, 99.1, 65.9, 74.4),
    "3B-2x": (89.5, 85.9, 99.5, 94.5, 97.4, 89.0, 97.4, 96.7, 93.4, 89.9, 9.5, 98.9, 66.1, 74.8),
}
"""Percentages at 224, 336 and 448 px."""


def study(scale: Scale) -> Study:
    """Every size at every resolution; two sizes where minutes count."""
    experiments = []
    for size in ("L", "H", "1B", "3B") if scale == "paper" else ("L", "H"):
        experiments.append(pretrained(scale, f"{size}-1x", size=size))
        experiments += [
            adapted(scale, f"{size}-{name}", f"{size}-1x", factor, size=size) for name, factor in FACTORS.items()
        ]
    known = {one.name: scores(one.name) for one in experiments}
    source = "arXiv:2411.14402, Figure 3 and Table B2; length and rates of the adaptation are ASSUMPTIONS"
    return Study(name="aimv2-high-resolution", source=source, experiments=experiments, paper=known)


def scores(name: str) -> dict[str, float]:
    """A row of Table B2, as fractions."""
    return {column: round(value / 100, 4) for column, value in zip(COLUMNS, PAPER[name], strict=True)}
