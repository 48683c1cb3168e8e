"""A linear probe of all tokens, without pooling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from torch import Generator

from aimcore import Problem, at_least, component
from aimcore.contracts import limits
from aimcore.contracts.probes import Reads
from aimcore_probes.grid import GridModule
from aimcore_probes.grid_probe import GridProbe
from aimcore_probes.linear import UNPUBLISHED


@component("linear_tokens")
class LinearTokensProbe(GridProbe):
    """BatchNorm without affine, then one linear layer on the tokens of all patches, one after another.

    The probe ``linear`` averages the tokens of an image, which loses where things are: a narrow trunk then has fewer
    numbers per image than the image has pixels. This probe keeps all of them. On raw pixels it reads all pixels, so
    that both have the same information. It is for small images: an image has N * D features. Not in the papers.
    """

    reads: ClassVar[Reads] = "tokens"
    weight_decay: float = 0.1

    @property
    def decays(self) -> tuple[float, ...]:
        """The only weight decay."""
        return (self.weight_decay,)

    @classmethod
    def published(cls) -> Mapping[str, GridProbe]:
        """Return the attentive probe's protocol, arXiv:2401.08541, Table 11, with which this one is compared."""
        return {"Table 11": cls()}

    def departures(self) -> Iterable[str]:
        """Yield the departures from Table 11, and that the papers pool tokens."""
        yield from super().departures()
        yield UNPUBLISHED
        yield "all tokens are classified, one after another; the papers' probes pool them"

    def problems(self) -> Iterable[Problem]:
        """Yield problems of the grid, and a negative decay."""
        yield from super().problems()
        yield from at_least("weight_decay", self.weight_decay, 0, limits.DECAY)

    def module(self, shape: tuple[int, ...], num_classes: int, generator: Generator) -> GridModule:
        """Build classifiers of tokens ``[N, D]``, initialized with zeros."""
        from aimcore_probes.linear_module import FlatLinearGrid

        return FlatLinearGrid(shape[0] * shape[1], num_classes, len(self.grid))
