"""Old name, until 0.3: see :mod:`aimcore.contracts.randomness`."""

from aimcore.renamed.forwarding import forwarded

__getattr__ = forwarded("randomness", "contracts.randomness")
