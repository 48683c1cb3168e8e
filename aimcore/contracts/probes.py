"""Probes: classifiers on frozen features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from aimcore.contracts.augmentations import Augmentation
from aimcore.contracts.component import Component
from aimcore.contracts.results import LabelledFeatures

Reads = Literal["pooled", "tokens", "extra"]
"""Features of each image that a probe reads: one vector ``[D]``, the tokens ``[N, D]`` of patches, or the trunk's extra
tokens ``[R, D]`` (class token, registers)."""
Pooling = Literal["mean", "class", "class_and_mean"]
"""How tokens become one vector: the mean over patches, the class token, or both concatenated (``[2 * D]``)."""


class FittedProbe(ABC):
    """A trained probe, with the settings that it chose."""

    choice: Mapping[str, Any]
    """The chosen setting, e.g. ``{"learning_rate": 1e-3, "held_out_top1": 0.71}``."""

    @abstractmethod
    def predict(self, features: Tensor) -> Tensor:
        """Return ``[n]`` predicted classes for features of the kind that the probe reads."""


class FeatureStream(ABC):
    """Labelled features that are read in pieces, because all of them may not fit in memory."""

    labels: Tensor
    """Labels of all samples, ``[n]`` int64."""
    num_classes: int
    shape: tuple[int, ...]
    """Shape of one sample's features: ``(D,)`` pooled, ``(N, D)`` tokens, ``(R, D)`` extra."""

    @abstractmethod
    def pieces(self, generator: Generator | None = None) -> Iterator[LabelledFeatures]:
        """Yield every sample once, in pieces of bounded size: in a fixed order, or shuffled by ``generator``."""

    def read(self) -> LabelledFeatures:
        """Read all samples into memory."""
        pieces = tuple(self.pieces())
        features = [piece.features for piece in pieces] or [torch.zeros(0, *self.shape)]
        labels = [piece.labels for piece in pieces] or [self.labels]
        return LabelledFeatures(features=torch.cat(features), labels=torch.cat(labels), num_classes=self.num_classes)


class Probe(Component, ABC):
    """A classifier on frozen features."""

    __slots__ = ()
    role: ClassVar[str] = "probes"
    reads: ClassVar[Reads] = "pooled"
    """The features of each image that it reads."""
    reads_padding: ClassVar[bool] = False
    """Whether a probe of tokens skips the tokens of padding, whose values are all NaN. Only images at native resolution
    with masked padding have them; other probes of tokens are refused there."""
    holds_out: ClassVar[bool] = True
    """Whether it chooses between settings. If not, it trains on all images, and no images are held out."""

    @property
    def pooling(self) -> Pooling:
        """How tokens become one vector, for a probe that reads ``"pooled"``.

        The class token exists only after the trunk's final norm: with it, ``layers_of`` must return ``()``, as for a
        probe that reads ``"extra"``.
        """
        return "mean"

    @property
    def max_train_images(self) -> int | None:
        """Largest number of training images that it reads, including held-out ones, chosen by hash; None reads all."""
        return None

    @property
    def augmentation(self) -> Augmentation | None:
        """How its training images are augmented; None trains on features of the evaluation transform.

        With an augmentation the features are computed anew in every pass over the training images, so the probe is
        fitted by ``fit_stream``: each call of ``train.pieces(generator)`` gives other crops. Held-out and test images
        are never augmented.
        """
        return None

    @property
    def protocol(self) -> str:
        """The name of the protocol that it follows, for the protocol card of its score."""
        return "its own"

    def departures(self) -> Iterable[str]:
        """Yield the differences from the protocol of its paper, for the protocol card of its score."""
        return ()

    @abstractmethod
    def layers_of(self, depth: int) -> tuple[int, ...]:
        """Return the indices of the blocks (of ``depth``) whose raw outputs are averaged into its features."""

    @abstractmethod
    def fit(self, train: LabelledFeatures, held_out: LabelledFeatures, seed: int) -> FittedProbe:
        """Train all settings on ``train``, and return the probe that is best on ``held_out``."""

    def fit_stream(self, train: FeatureStream, held_out: FeatureStream, seed: int) -> FittedProbe:
        """Like :meth:`fit`, for features that may not fit in memory. The default reads all of them into memory."""
        return self.fit(train.read(), held_out.read(), seed)
