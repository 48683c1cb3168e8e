"""Old name, until 0.3: see :mod:`aimcore.contracts.messages`."""

from aimcore.renamed.forwarding import forwarded

__getattr__ = forwarded("wording", "contracts.messages")
