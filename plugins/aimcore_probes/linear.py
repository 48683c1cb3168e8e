"""The linear probe of arXiv:2401.08541.

Shape suffixes: G settings of the grid, C classes, D width; lower-case b is a batch of samples.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from aimcore import FittedProbe, Probe, Problem, at_least, component

if TYPE_CHECKING:
    from aimcore import LabelledFeatures

NUM_LAYERS = 6
"""Blocks whose outputs the probes of arXiv:2401.08541 average."""


@component("linear", paper="arXiv:2401.08541, Table 11")
class LinearProbe(Probe):
    """BatchNorm without affine, then one linear layer, on the mean token of the last six blocks.

    All learning rates train in one pass; the one with the best held-out accuracy is kept. Departures from the paper,
    which reports the best of the grid, describes no held-out choice, and augments the images: the choice is made on
    held-out images, and the features are fixed, so nothing is augmented. The released attentive probe's classifier
    has no bias; the linear probe was not released, and this one has a bias, which is not decayed.
    """

    reads: ClassVar[Literal["pooled", "tokens"]] = "pooled"
    learning_rates: tuple[float, ...] = (1e-4, 3e-4, 5e-4, 10e-4, 15e-4, 20e-4, 40e-4)
    """Peak rates, one classifier each."""
    min_lr: float = 1e-5
    """Where every rate's cosine ends."""
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)
    epochs: int = 100
    """Passes over the features: 100, or 50 on ImageNet."""
    warmup_epochs: int = 0
    """Of them, passes with a linearly rising rate: 0, or 5 on ImageNet."""
    batch_size: int = 512
    """512, or 1024 on ImageNet."""
    gradient_clipping: float | None = 3.0
    """Largest gradient norm of each classifier; None does not clip."""

    def problems(self) -> Iterable[Problem]:
        """Rates must be distinct and not below ``min_lr``; counts must be positive."""
        yield from at_least("min_lr", self.min_lr, 0)
        rates = self.learning_rates
        if not rates or len(set(rates)) < len(rates) or not min(rates) >= self.min_lr or min(rates) == 0:
            yield Problem("learning_rates", f"must be distinct positive rates, none below min_lr, got {rates}")
        yield from at_least("weight_decay", self.weight_decay, 0)
        if not all(0 <= beta < 1 for beta in self.betas):
            yield Problem("betas", f"must lie in [0, 1), got {self.betas}")
        yield from at_least("epochs", self.epochs, 1)
        if not 0 <= self.warmup_epochs < self.epochs:
            yield Problem("warmup_epochs", f"must lie in [0, epochs), got {self.warmup_epochs} of {self.epochs}")
        yield from at_least("batch_size", self.batch_size, 2)
        if self.gradient_clipping is not None and not self.gradient_clipping > 0:
            yield Problem("gradient_clipping", f"must be positive or null, got {self.gradient_clipping}")

    def layers_of(self, depth: int) -> tuple[int, ...]:
        """The last six blocks, or all of a shallower trunk."""
        return tuple(range(max(0, depth - NUM_LAYERS), depth))

    def fit(self, train: LabelledFeatures, held_out: LabelledFeatures, seed: int) -> FittedProbe:
        """Train one classifier per learning rate on ``train [n, D]`` and keep the best on ``held_out``.

        ``seed`` shuffles the samples. The same seed gives the same probe on the same machine.

        Raises:
            InvalidValue: too few samples, or labels that are no classes.
        """
        import torch

        from aimcore_probes.grid import Training, fit_grid
        from aimcore_probes.linear_module import LinearGrid

        generator = torch.Generator().manual_seed(seed)
        module = LinearGrid(train.features.shape[1], train.num_classes, len(self.learning_rates))
        how = Training(
            learning_rates=self.learning_rates,
            min_lr=self.min_lr,
            weight_decay=self.weight_decay,
            betas=self.betas,
            epochs=self.epochs,
            warmup_epochs=self.warmup_epochs,
            batch_size=self.batch_size,
            gradient_clipping=self.gradient_clipping,
        )
        return fit_grid(module.to(train.features.device), train, held_out, how, generator)
