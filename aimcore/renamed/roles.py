"""Old name, until 0.3: see :mod:`aimcore.contracts.roles`."""

from aimcore.renamed.forwarding import forwarded

__getattr__ = forwarded(
    "roles",
    "contracts.roles",
    "contracts.tokenizers",
    "contracts.orderings",
    "contracts.targets",
    "contracts.heads",
    "contracts.decoders",
    "contracts.probes",
    "contracts.evaluations",
    "contracts.objectives",
    "contracts.trunks",
    "contracts.sources",
    "contracts.trackers",
    "contracts.images",
)
