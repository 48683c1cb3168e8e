"""Old name, until 0.3: see :mod:`aimcore.modeling.attention`."""

from aimcore.renamed.forwarding import forwarded

__getattr__ = forwarded("attention", "modeling.attention")
