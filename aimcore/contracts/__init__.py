"""The contracts of plugins: components, roles and their modules, the values that they exchange, and errors.

Start with :mod:`~aimcore.contracts.component`, then read the file of your role. A role's file holds its component (the
configuration, a frozen value) and the torch module that the component builds.

ZeRO stage 3 gathers a module's parameters only during its own forward, so three rules hold for every module: it returns
tensors, NamedTuples or dicts; only the forward of the module that owns a parameter uses it; no module uses the parts of
another module.

Shape suffixes of the whole project (``tokens_BND`` is ``[B, N, D]``; a digit is an axis of that length):
B images or captions of a batch, C channels, H height in pixels (in attention, heads), W width in pixels,
N patches or tokens of a sequence, F values per patch, D width of a token, E values per head or width of an embedding,
M scored positions of a batch, K outputs per scored position, S steps of the reading order, T text tokens,
V entries of a vocabulary. A file that uses another letter defines it.
"""
