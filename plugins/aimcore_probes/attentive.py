"""The attentive probe of arXiv:2401.08541 and arXiv:2411.14402."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from aimcore import FittedProbe, Problem, at_least, component
from aimcore.roles import FeatureStream
from aimcore_probes.grid_probe import GridProbe

if TYPE_CHECKING:
    from aimcore import LabelledFeatures

HEAD_WIDTH = 128
"""Width of a head in every released encoder."""


@component("attentive", paper="arXiv:2401.08541, equation 4 and Table 11; arXiv:2411.14402, Table A2")
class AttentiveProbe(GridProbe):
    """One learned query attends over all tokens; a linear layer classifies what it gathers.

    As released: BatchNorm without affine before the keys and values (not in equation 4), scores divided by the square
    root of the head's width, no projection of query or output, no bias anywhere. Every pair of a rate and a decay
    trains in one pass; the one with the best held-out accuracy is kept. Departures from the papers: the choice is
    made on held-out images, and the features are fixed, so nothing is augmented. What the papers do not say: the
    query, a vector, is not decayed.
    """

    reads: ClassVar[Literal["pooled", "tokens"]] = "tokens"
    reads_padding: ClassVar[bool] = True
    weight_decays: tuple[float, ...] = (0.1,)
    """Each is tried with every rate; arXiv:2411.14402 has 0.05 and 0.1."""
    num_heads: int | None = None
    """Heads of the query: the papers take as many as the trunk has. By default heads are 128 wide, as in every
    released encoder. Where that does not divide the width (patches of raw pixels), the next smaller number of heads
    that does is taken."""
    max_train_images: int | None = None
    """Most training images, held-out ones among them; None takes all."""

    @classmethod
    def aimv2(cls, **changes: Any) -> Self:
        """The protocol of arXiv:2411.14402, Table A2: lower rates, two decays, the trunk's own output."""
        rates = (0.5e-4, 1e-4, 2e-4, 3e-4, 5e-4, 10e-4, 20e-4)
        return cls(**{"learning_rates": rates, "weight_decays": (0.05, 0.1), "layers": (), **changes})

    @classmethod
    def published(cls) -> Mapping[str, GridProbe]:
        """Both papers' tables: their columns for ImageNet and for the other data sets."""
        return {
            "Table 11": cls(),
            "Table 11 (ImageNet)": cls(epochs=50, warmup_epochs=5, batch_size=1024),
            "Table A2": cls.aimv2(),
            "Table A2 (ImageNet)": cls.aimv2(warmup_epochs=5, batch_size=1024),
        }

    @property
    def decays(self) -> tuple[float, ...]:
        """The weight decays."""
        return self.weight_decays

    def problems(self) -> Iterable[Problem]:
        """The grid's, and decays must be distinct; counts must be positive."""
        yield from super().problems()
        decays = self.weight_decays
        if not decays or len(set(decays)) < len(decays) or not all(decay >= 0 for decay in decays):
            yield Problem("weight_decays", f"must be distinct and not negative, got {decays}")
        if self.num_heads is not None:
            yield from at_least("num_heads", self.num_heads, 1)
        if self.max_train_images is not None:
            yield from at_least("max_train_images", self.max_train_images, 4)

    def heads_of(self, width: int) -> int:
        """How many heads tokens of ``width`` get: ``num_heads`` (or as many as are 128 wide) if that divides it."""
        wanted = self.num_heads or -(-width // HEAD_WIDTH)
        return next(heads for heads in range(min(wanted, width), 0, -1) if width % heads == 0)

    def fit(self, train: LabelledFeatures, held_out: LabelledFeatures, seed: int) -> FittedProbe:
        """Train every setting on ``train [n, N, D]`` and keep the best on ``held_out``.

        ``seed`` draws the weights and shuffles the samples. The same seed gives the same probe on the same machine.

        Raises:
            InvalidValue: too few samples, or labels that are no classes.
        """
        return self._fit(train, held_out, seed)

    def fit_stream(self, train: FeatureStream, held_out: FeatureStream, seed: int) -> FittedProbe:
        """As :meth:`fit`, with a bounded number of features in memory; the samples are shuffled piece by piece."""
        return self._fit(train, held_out, seed)

    def _fit(
        self, train: LabelledFeatures | FeatureStream, held_out: LabelledFeatures | FeatureStream, seed: int
    ) -> FittedProbe:
        import torch

        from aimcore_probes.attentive_module import AttentiveGrid
        from aimcore_probes.grid import fit_grid
        from aimcore_probes.samples import samples_of

        generator = torch.Generator().manual_seed(seed)
        samples = samples_of(train)
        width = samples.shape[1]
        heads = self.heads_of(width)
        module = AttentiveGrid(width, train.num_classes, len(self.grid), heads, generator)
        fitted = fit_grid(self, module, samples, samples_of(held_out), generator)
        fitted.choice["num_heads"] = heads
        return fitted
