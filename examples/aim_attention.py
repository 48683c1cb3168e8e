"""Which attention should an encoder have in training, and which when it is used? AIM, arXiv:2401.08541, Table 3d.

    python -m aimcore.run examples/aim_attention.py                     # two cores, a few minutes
    python -m aimcore.run examples/aim_attention.py --scale paper --dry-run

Two encoders are trained, one with causal attention and one with a prefix of random length. Each is probed as it was
trained and with the other attention: those runs train nothing, and begin with the weights of the first two.
"""

from typing import Literal

import attrs
from aim_settings import experiment, next_patch, rows, source

from aimcore import Experiment, Scale, Schedule, Study, Weights

Inference = Literal["causal", "bidirectional"]
PAPER = rows(
    {
        "causal-causal": (69.5, 77.4), "causal-bidirectional": (30.9, 52.3),
        "prefix-bidirectional": (70.0, 78.2), "prefix-causal": (68.4, 76.9),
    }
)  # fmt: skip
"""By the attention in training and in probing."""


def probed_otherwise(trained: Experiment, name: str, attention: Inference) -> Experiment:
    """The same encoder, probed with another attention."""
    return attrs.evolve(  # type: ignore[misc, no-any-return]
        trained,
        name=name,
        num_steps=0,
        schedule=Schedule(warmup_steps=0),
        initial_weights=Weights(experiment=trained.name),
        probe_attention=attention,
    )


def study(scale: Scale) -> Study:
    """The four columns of Table 3d."""
    causal = experiment("causal-causal", scale, objective=next_patch(scale, prefix=None), probe_attention="causal")
    prefix = experiment("prefix-bidirectional", scale, probe_attention="bidirectional")
    experiments = [
        causal,
        probed_otherwise(causal, "causal-bidirectional", "bidirectional"),
        prefix,
        probed_otherwise(prefix, "prefix-causal", "causal"),
    ]
    return Study(name="aim-attention", source=source("Table 3d", scale), experiments=experiments, paper=PAPER)
