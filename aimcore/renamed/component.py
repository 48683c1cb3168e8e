"""Old name, until 0.3: see :mod:`aimcore.contracts.component`."""

from aimcore.renamed.forwarding import forwarded

__getattr__ = forwarded("component", "contracts.component", "contracts.errors")
