"""The linear probe of arXiv:2401.08541."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from aimcore import FittedProbe, Problem, at_least, component
from aimcore.roles import FeatureStream
from aimcore_probes.grid_probe import GridProbe

if TYPE_CHECKING:
    from aimcore import LabelledFeatures


@component("linear", paper="arXiv:2401.08541, Table 11")
class LinearProbe(GridProbe):
    """BatchNorm without affine, then one linear layer, on the mean token of the last six blocks.

    All learning rates train in one pass; the one with the best held-out accuracy is kept. Departures from the paper,
    which reports the best of the grid, describes no held-out choice, and augments the images: the choice is made on
    held-out images, and the features are fixed, so nothing is augmented. The released attentive probe's classifier
    has no bias; the linear probe was not released, and this one has a bias, which is not decayed.
    """

    reads: ClassVar[Literal["pooled", "tokens"]] = "pooled"
    weight_decay: float = 0.1

    @property
    def decays(self) -> tuple[float, ...]:
        """The one weight decay."""
        return (self.weight_decay,)

    @classmethod
    def published(cls) -> Mapping[str, GridProbe]:
        """Table 11 of arXiv:2401.08541: its columns for ImageNet and for the other data sets."""
        return {
            "Table 11": cls(),
            "Table 11 (ImageNet)": cls(epochs=50, warmup_epochs=5, batch_size=1024),
        }

    def problems(self) -> Iterable[Problem]:
        """The grid's, and a decay cannot be negative."""
        yield from super().problems()
        yield from at_least("weight_decay", self.weight_decay, 0)

    def fit(self, train: LabelledFeatures, held_out: LabelledFeatures, seed: int) -> FittedProbe:
        """Train one classifier per learning rate on ``train [n, D]`` and keep the best on ``held_out``.

        ``seed`` shuffles the samples. The same seed gives the same probe on the same machine.

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

        from aimcore_probes.grid import fit_grid
        from aimcore_probes.linear_module import LinearGrid
        from aimcore_probes.samples import samples_of

        generator = torch.Generator().manual_seed(seed)
        samples = samples_of(train)
        module = LinearGrid(samples.shape[0], train.num_classes, len(self.grid))
        return fit_grid(self, module, samples, samples_of(held_out), generator)
