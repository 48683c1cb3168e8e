"""Old name, until 0.3: see :mod:`aimcore.engine.cost`."""

from aimcore.renamed.forwarding import forwarded

__getattr__ = forwarded("cost", "engine.cost")
