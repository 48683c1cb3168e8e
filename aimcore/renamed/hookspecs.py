"""Old name, until 0.3: see :mod:`aimcore.registry.hookspecs`."""

from aimcore.renamed.forwarding import forwarded

__getattr__ = forwarded("hookspecs", "registry.hookspecs")
