"""Old name, until 0.3: see :mod:`aimcore.contracts.trunks`."""

from aimcore.renamed.forwarding import forwarded

__getattr__ = forwarded("modules", "contracts.trunks", "contracts.heads", "contracts.decoders", "contracts.objectives")
