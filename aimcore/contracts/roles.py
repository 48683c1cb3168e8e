"""All roles, in the order in which they are listed."""

from __future__ import annotations

from aimcore.contracts.component import Component
from aimcore.contracts.decoders import Decoder
from aimcore.contracts.evaluations import Evaluation
from aimcore.contracts.heads import Head
from aimcore.contracts.layouts import FileLayout
from aimcore.contracts.objectives import Objective
from aimcore.contracts.optimizers import Optimizer
from aimcore.contracts.orderings import Ordering
from aimcore.contracts.probes import Probe
from aimcore.contracts.sources import Source
from aimcore.contracts.targets import Target
from aimcore.contracts.tokenizers import Tokenizer
from aimcore.contracts.trackers import Tracker
from aimcore.contracts.trunks import Trunk

ROLES: tuple[type[Component], ...] = (
    Tokenizer, Ordering, Target, Head, Decoder, Probe, Evaluation, Objective, Trunk, Source, Optimizer, Tracker,
    FileLayout,
)  # fmt: skip
