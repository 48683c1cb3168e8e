"""How much should the image loss weigh? AIMv2, arXiv:2411.14402, Table 9c.

python -m aimcore.run examples/aimv2_image_weight.py                # two cores, a few minutes
python -m aimcore.run examples/aimv2_image_weight.py --scale paper --dry-run
"""

from aimv2_settings import experiment, multimodal, rows

from aimcore import Scale, Study

WEIGHTS = (0.2, 0.4, 0.6)
PAPER = rows(
    {
        "image-weight-0.2": (85.6, 76.7, 37.4),
        "image-weight-0.4": (85.6, 76.9, 37.5),
        "image-weight-0.6": (85.6, 76.7, 37.4),
    }
)


def study(scale: Scale) -> Study:
    """The three columns of Table 9c; the text loss weighs 1."""
    experiments = [
        experiment(f"image-weight-{weight}", multimodal(scale, image_weight=weight), scale) for weight in WEIGHTS
    ]
    return Study(name="aimv2-image-weight", source="arXiv:2411.14402, Table 9c", experiments=experiments, paper=PAPER)
