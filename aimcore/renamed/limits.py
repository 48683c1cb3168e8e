"""Old name, until 0.3: see :mod:`aimcore.contracts.limits`."""

from aimcore.renamed.forwarding import forwarded

__getattr__ = forwarded("limits", "contracts.limits")
