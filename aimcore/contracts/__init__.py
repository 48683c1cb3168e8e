"""What a plugin author reads: components, roles with the modules they build, the values that flow, and errors.

Start with :mod:`~aimcore.contracts.component`, then read the file of your role. A role's file holds its component (the
configuration, a frozen value) and the torch module that the component builds.

ZeRO stage 3 gathers a module's parameters around its own forward, so three rules hold for every module: it returns
tensors, NamedTuples or dicts; a parameter is used only inside the forward of the module that owns it; no module reaches
into another module's parts.
"""
