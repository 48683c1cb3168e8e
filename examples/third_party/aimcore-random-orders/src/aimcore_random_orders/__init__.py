"""Autoregression in a random order per sample: the module that this distribution's entry point names."""

from __future__ import annotations

from collections.abc import Sequence

from aimcore import Ordering, Trunk, hookimpl
from aimcore_random_orders.ordering import RandomOrders
from aimcore_random_orders.trunk import ToldViT, ToldViTModule


@hookimpl
def orderings() -> Sequence[type[Ordering]]:
    """The orderings that this plugin supplies."""
    return [RandomOrders]


@hookimpl
def trunks() -> Sequence[type[Trunk]]:
    """The trunks that this plugin supplies."""
    return [ToldViT]


__all__ = ["RandomOrders", "ToldViT", "ToldViTModule"]
