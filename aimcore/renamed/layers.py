"""Old name, until 0.3: see :mod:`aimcore.modeling.layers`."""

from aimcore.renamed.forwarding import forwarded

__getattr__ = forwarded("layers", "modeling.layers", "contracts.features")
