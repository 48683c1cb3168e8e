"""Old name, until 0.3: see :mod:`aimcore.contracts.errors`."""

from aimcore.renamed.forwarding import forwarded

__getattr__ = forwarded("errors", "contracts.errors")
