"""Old name, until 0.3: see :mod:`aimcore.contracts.images`."""

from aimcore.renamed.forwarding import forwarded

__getattr__ = forwarded("values", "contracts.images", "contracts.batches", "contracts.features", "contracts.results")
