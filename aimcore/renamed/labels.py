"""Old name, until 0.3: see :mod:`aimcore.contracts.labels`."""

from aimcore.renamed.forwarding import forwarded

__getattr__ = forwarded("labels", "contracts.labels")
