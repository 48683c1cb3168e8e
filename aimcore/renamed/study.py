"""Old name, until 0.3: see :mod:`aimcore.running.study_files`."""

from aimcore.renamed.forwarding import forwarded

__getattr__ = forwarded("study", "running.study_files")
