"""Nearest neighbours as a probe: nothing is trained."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

from aimcore import FittedProbe, LabelledFeatures, Probe, Problem, at_least, component, within
from aimcore.contracts import limits
from aimcore_probes.layers import chosen_layers, problems_with_layers


@component("knn", paper="arXiv:1805.01978, section 3.4; arXiv:2104.14294 (k = 20)")
class KNNProbe(Probe):
    """The 20 most similar training images vote for their classes, by the cosine similarity of mean tokens.

    A neighbour of similarity s votes with weight exp(s / 0.07), as in arXiv:1805.01978, section 3.4; 20 neighbours
    are best in arXiv:2104.14294. Neither AIM nor AIMv2 reports this probe. Nothing is chosen, so nothing is held out:
    all training images are neighbours. Of equally similar images the earlier one is a neighbour; of classes with equal
    votes the first one is predicted.
    """

    reads: ClassVar[Literal["pooled", "tokens"]] = "pooled"
    holds_out: ClassVar[bool] = False
    k: int = 20
    """Number of neighbours that vote; all training images if there are fewer."""
    temperature: float | None = 0.07
    """Divides the similarity in the weight of a vote. With None every neighbour has one vote."""
    layers: tuple[int, ...] | None = None
    """Blocks whose raw outputs are averaged, counted from 0; by default the last six, or all of a shallower trunk.
    An empty tuple selects the trunk's own output, after its final norm."""

    def problems(self) -> Iterable[Problem]:
        """Yield counts and temperatures that are not positive."""
        yield from at_least("k", self.k, 1, limits.IMAGES)
        if self.temperature is not None and not self.temperature > 0:
            yield Problem("temperature", f"must be positive or null, got {self.temperature}")
        elif self.temperature is not None:
            yield from within("temperature", self.temperature, 1e-6, 1e6)  # float32 divides by it
        yield from problems_with_layers(self.layers)

    def layers_of(self, depth: int) -> tuple[int, ...]:
        """Return ``layers``, or the last six blocks, or all blocks of a shallower trunk."""
        return chosen_layers(self.layers, depth)

    def departures(self) -> Iterable[str]:
        """Yield how the features differ from the papers', which use one vector of the network's own."""
        yield "neighbours are compared by mean tokens of the blocks in 'layers'; the papers compare their own output"
        if self.k != 20:
            yield f"{self.k} neighbours vote; arXiv:2104.14294 has 20"
        if self.temperature != 0.07:
            yield f"the temperature is {self.temperature}; arXiv:1805.01978 has 0.07"

    def fit(self, train: LabelledFeatures, held_out: LabelledFeatures, seed: int) -> FittedProbe:
        """Store the directions of ``train [n, D]``; ``held_out`` and ``seed`` are not used.

        Raises:
            InvalidValue: there is no training image, or labels are not classes.
        """
        from aimcore_probes.neighbours import fit_neighbours

        return fit_neighbours(train, self.k, self.temperature)
