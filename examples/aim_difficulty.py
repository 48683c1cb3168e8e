"""Which rows of an image are hard to predict? AIM, arXiv:2401.08541, Figure 9.

    python -m aimcore.run examples/aim_difficulty.py                    # two cores, two minutes
    python -m aimcore.run examples/aim_difficulty.py --scale paper --dry-run

One encoder is trained in raster order and validated on images and on the same images upside down: the second run trains
nothing, and begins with all weights of the first. If the loss follows the rows of the image instead of the steps of the
sequence, the images are the reason. The report shows the validation loss along the sequence, in 16 parts: at the
paper's size, these are the rows of patches. Figure 7, the same curve for four orderings, is in the report of
``ablation_pattern.py``.
"""

import attrs
from aim_settings import experiment, next_patch, source

from aimcore import Scale, Schedule, Study, Weights
from aimcore_sources import Flipped


def study(scale: Scale) -> Study:
    """The two curves of Figure 9."""
    upright = experiment("upright", scale, objective=next_patch(scale, prefix=None), probes=())
    flipped = attrs.evolve(  # type: ignore[misc]
        upright,
        name="flipped",
        num_steps=0,
        schedule=Schedule(warmup_steps=0),
        initial_weights=Weights(experiment="upright", part="all"),
        data=attrs.evolve(upright.data, validation=Flipped(source=upright.data.validation)),
    )
    return Study(name="aim-difficulty", source=source("Figure 9", scale), experiments=[upright, flipped])
