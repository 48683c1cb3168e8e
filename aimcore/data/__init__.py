"""Batches from sources: counter-based sampling, transforms, loading, held-out splits."""

from aimcore.contracts.randomness import index_of
from aimcore.data.captions import Captions, TextRequest
from aimcore.data.loading import evaluation_batches, train_steps
from aimcore.data.sampling import micro_batch_numbers
from aimcore.data.splits import hold_out

__all__ = [
    "Captions",
    "TextRequest",
    "evaluation_batches",
    "hold_out",
    "index_of",
    "micro_batch_numbers",
    "train_steps",
]
