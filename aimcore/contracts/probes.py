"""Classifiers on the frozen trunk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from aimcore.contracts.component import Component
from aimcore.contracts.results import LabelledFeatures

Reads = Literal["pooled", "tokens", "extra"]
"""What a probe is given of each image: one vector ``[D]``, tokens ``[N, D]`` of patches, or the trunk's further tokens
``[R, D]`` (class token, registers)."""
Pooling = Literal["mean", "class", "class_and_mean"]
"""How tokens become one vector: the mean over patches, the class token, or both behind each other (``[2 * D]``)."""


class FittedProbe(ABC):
    """A trained probe: it predicts, and says what was chosen and how."""

    choice: Mapping[str, Any]
    """The chosen setting, e.g. ``{"learning_rate": 1e-3, "held_out_top1": 0.71}``."""

    @abstractmethod
    def predict(self, features: Tensor) -> Tensor:
        """``[n]`` predicted classes for features of the kind the probe reads."""


class FeatureStream(ABC):
    """Labelled features that are read a piece at a time, because there may be too many to hold."""

    labels: Tensor
    """``[n]`` int64, of every sample."""
    num_classes: int
    shape: tuple[int, ...]
    """Of one sample's features: ``(D,)`` pooled, ``(N, D)`` tokens, ``(R, D)`` extra."""

    @abstractmethod
    def pieces(self, generator: Generator | None = None) -> Iterator[LabelledFeatures]:
        """Every sample once, a bounded number at a time: in a fixed order, or in one that ``generator`` draws."""

    def read(self) -> LabelledFeatures:
        """All samples at once, in memory."""
        pieces = tuple(self.pieces())
        features = [piece.features for piece in pieces] or [torch.zeros(0, *self.shape)]
        labels = [piece.labels for piece in pieces] or [self.labels]
        return LabelledFeatures(features=torch.cat(features), labels=torch.cat(labels), num_classes=self.num_classes)


class Probe(Component, ABC):
    """A classifier on the frozen trunk."""

    __slots__ = ()
    role: ClassVar[str] = "probes"
    reads: ClassVar[Reads] = "pooled"
    reads_padding: ClassVar[bool] = False
    """Whether a probe of tokens leaves out those of padding, whose values are all NaN. Only images of native resolution
    with masked padding have any; other probes of tokens are refused there."""
    holds_out: ClassVar[bool] = True
    """Whether it chooses between settings. One that does not gets all images to train on, and no held-out ones."""

    @property
    def pooling(self) -> Pooling:
        """How tokens become one vector, for a probe that reads ``"pooled"``.

        The class token exists after the trunk's final norm only: ``layers_of`` must give ``()`` for it, as for a
        probe that reads ``"extra"``.
        """
        return "mean"

    @property
    def max_train_images(self) -> int | None:
        """Most training images that it reads, held-out ones among them, chosen by hash; None reads all."""
        return None

    def departures(self) -> Iterable[str]:
        """Yield what differs from the protocol of its paper, for the card beside its score."""
        return ()

    @abstractmethod
    def layers_of(self, depth: int) -> tuple[int, ...]:
        """Indices of the blocks (of ``depth``) whose raw outputs are averaged into the features it reads."""

    @abstractmethod
    def fit(self, train: LabelledFeatures, held_out: LabelledFeatures, seed: int) -> FittedProbe:
        """Train the whole grid of settings on ``train`` at once and keep the best on ``held_out``."""

    def fit_stream(self, train: FeatureStream, held_out: FeatureStream, seed: int) -> FittedProbe:
        """As :meth:`fit`, on features that may not fit in memory; unless overridden, they are read into it."""
        return self.fit(train.read(), held_out.read(), seed)
