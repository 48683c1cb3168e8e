"""Runs of studies: all checks first, then one experiment after another. Each is recorded when it ends."""
