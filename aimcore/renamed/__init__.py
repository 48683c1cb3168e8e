"""Modules of aimcore 0.1 under their old names. They warn, and will be gone in 0.3.

``aimcore.__path__`` ends with this folder, so that ``import aimcore.errors`` finds ``aimcore/renamed/errors.py``.
"""
