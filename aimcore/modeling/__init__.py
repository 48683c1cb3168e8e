"""Blocks and pure functions that plugins share: attention, layers, positions."""
