"""Old name, until 0.3: see :mod:`aimcore.io.atomic_files`."""

from aimcore.renamed.forwarding import forwarded

__getattr__ = forwarded("files", "io.atomic_files")
