"""Is it better to predict the next patch or masked ones? AIM, arXiv:2401.08541, Table 5.

    python -m aimcore.run examples/aim_masking.py                       # two cores, a few minutes
    python -m aimcore.run examples/aim_masking.py --scale paper --dry-run

Encoder, head, target, data and optimiser are the same; masked patches are replaced by a learned token in the input.
"""

import attrs
from aim_settings import encoder, experiment, head, rows, source

from aimcore import Scale, Study
from aimcore_objectives import MaskedPatch

PAPER = rows({"autoregressive": (None, 78.2), "masked-50": (None, 70.3), "masked-75": (None, 77.8)})


def study(scale: Scale) -> Study:
    """The three columns of Table 5."""
    experiments = [experiment("autoregressive", scale)]
    trunk = attrs.evolve(encoder(scale), mask_token=True)
    for percent in (50, 75):
        objective = MaskedPatch(head=head(scale), ratio=percent / 100)
        experiments.append(experiment(f"masked-{percent}", scale, trunk=trunk, objective=objective))
    return Study(name="aim-masking", source=source("Table 5", scale), experiments=experiments, paper=PAPER)
