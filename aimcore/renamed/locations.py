"""Old name, until 0.3: see :mod:`aimcore.io.locations`."""

from aimcore.renamed.forwarding import forwarded

__getattr__ = forwarded("locations", "io.locations")
