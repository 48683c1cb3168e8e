"""Old name, until 0.3: see :mod:`aimcore.io.text_files`."""

from aimcore.renamed.forwarding import forwarded

__getattr__ = forwarded("text_files", "io.text_files")
