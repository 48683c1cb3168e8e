"""Do loss and accuracy improve with capacity, samples and compute? AIM, arXiv:2401.08541, Figures 1, 4 and 6.

    python -m aimcore.run examples/aim_scaling.py                       # two cores, about ten minutes
    python -m aimcore.run examples/aim_scaling.py --scale paper --dry-run

Each size is trained with a short and with a long schedule. The report shows the validation loss while training
(Figure 4), against samples and compute (Figure 6), and the accuracy of each probe against the loss, with their
correlation (Figures 1 and 4).

``paper`` is AIM-0.6B to AIM-7B for 500,000 and 1,250,000 steps on DFN-2B+ (Table 10 says 1,250,000 steps, the text
1.2M; the paper's own AIM-0.6B ran 500,000 only). All have Table 10's warm-up of 31,250 steps: for the short schedule
that is an ASSUMPTION.
"""

import attrs
from aim_data import sources
from aim_settings import experiment

from aimcore import Scale, Scaling, Schedule, Study, Trunk
from aimcore_trunks import ViT, aim

SMALL = {"w32": (32, 2), "w64": (64, 3), "w128": (128, 4)}
STEPS = {"smoke": (4, 8), "small": (150, 350), "paper": (500_000, 1_250_000)}


def trunks(scale: Scale) -> dict[str, Trunk]:
    """The sizes of Table 1, or a few small ones."""
    if scale == "paper":
        return {"0.6B": aim("0.6B"), "1B": aim("1B"), "3B": aim("3B"), "7B": aim("7B")}
    sizes = SMALL if scale == "small" else {"w16": (16, 1), "w32": (32, 1)}
    return {name: ViT(width=width, depth=depth, num_heads=4, patch_size=4) for name, (width, depth) in sizes.items()}


def study(scale: Scale) -> Study:
    """Every size with both schedules."""
    experiments, curves = [], {}
    for size, trunk in trunks(scale).items():
        for num_steps in STEPS[scale]:
            one = experiment(
                f"{size}-{num_steps}", scale, trunk=trunk, num_steps=num_steps, validate_every=num_steps // 4
            )
            if scale == "paper":
                data = attrs.evolve(one.data, train=sources(scale)["mixed"], probe_train=one.data.train)
                one = attrs.evolve(one, data=data, schedule=Schedule(warmup_steps=31_250))
            experiments.append(one)
        curves[size] = [one.name for one in experiments[-2:]]
    where = "arXiv:2401.08541, Figures 1, 4 and 6"
    if scale == "paper":
        where += "; the warm-up of the short schedule is an ASSUMPTION"
    return Study(name="aim-scaling", source=where, experiments=experiments, scaling=Scaling(curves=curves))
