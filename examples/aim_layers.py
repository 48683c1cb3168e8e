"""Which blocks have the best features? AIM, arXiv:2401.08541, Table 7 and Figure 10.

    python -m aimcore.run examples/aim_layers.py                        # two cores, several minutes
    python -m aimcore.run examples/aim_layers.py --scale paper --dry-run

The attentive probe on every block alone, and on the mean of every six consecutive blocks. Blocks are chosen on held-out
training images, where the paper describes no such choice. Encoders at ``small`` have 12 narrow blocks, so that there
are layers to choose from.

``paper`` is AIM-0.6B to AIM-7B with Table 10's schedule (500,000 steps for AIM-0.6B) on DFN-2B+. Table 7's "last
layer" is the mean of the last six blocks.
"""

import attrs
from aim_data import sources
from aim_settings import encoder, experiment

from aimcore import Experiment, Scale, Schedule, Study
from aimcore_probes import AttentiveProbe
from aimcore_trunks import AIM_NUM_STEPS, AIMSize, aim, aim_schedule

PAPER = {
    size: {"attentive@last_six": last, "attentive@best_window": best}
    for size, (last, best) in {
        "0.6B": (0.785, 0.794), "1B": (0.806, 0.823), "3B": (0.822, 0.833), "7B": (0.824, 0.840),
    }.items()
}  # fmt: skip
SIZES: tuple[AIMSize, ...] = ("0.6B", "1B", "3B", "7B")


def pretrained(size: AIMSize) -> Experiment:
    """An encoder of Table 1, trained on DFN-2B+ and probed on ImageNet."""
    short = size == "0.6B"
    one = experiment(
        size, "paper", trunk=aim(size), num_steps=500_000 if short else AIM_NUM_STEPS, probe_every_layer=True
    )
    data = attrs.evolve(one.data, train=sources("paper")["mixed"], probe_train=one.data.train)
    schedule = Schedule(warmup_steps=31_250) if short else aim_schedule()
    return attrs.evolve(one, data=data, schedule=schedule)  # type: ignore[misc, no-any-return]


def study(scale: Scale) -> Study:
    """The columns of Table 7, and the curves of Figure 10."""
    where = "arXiv:2401.08541, Table 7 and Figure 10"
    if scale == "paper":
        experiments = [pretrained(size) for size in SIZES]
        where += "; the warm-up of AIM-0.6B's short schedule is an ASSUMPTION"
        return Study(name="aim-layers", source=where, experiments=experiments, paper=PAPER)
    images, depth = {"smoke": (200, 4), "small": (4000, 3)}[scale]
    probe = AttentiveProbe(epochs=6 if scale == "small" else 1, batch_size=32, max_train_images=images, num_heads=4)
    trunk = encoder(scale, width=1 if scale == "smoke" else 1 / 2, depth=depth)
    one = experiment("deep", scale, trunk=trunk, probes=(probe,), probe_every_layer=True)
    return Study(name="aim-layers", source=where, experiments=[one])
