"""Old name, until 0.3: see :mod:`aimcore.contracts.images`."""

from aimcore.renamed.forwarding import forwarded

__getattr__ = forwarded("patches", "contracts.images", "modeling.positions")
