"""The attentive probe of arXiv:2401.08541 and arXiv:2411.14402."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, Self

from torch import Generator

from aimcore import Problem, at_least, component
from aimcore.contracts import limits
from aimcore_probes.grid import GridModule
from aimcore_probes.grid_probe import PAPERS_AUGMENTATION, GridProbe

HEAD_WIDTH = 128
"""Width of a head in every released encoder."""


@component("attentive", paper="arXiv:2401.08541, equation 4 and Table 11; arXiv:2411.14402, Table A2")
class AttentiveProbe(GridProbe):
    """A learned query attends to all tokens, and a linear layer classifies the result.

    As released: BatchNorm without affine before the keys and values (not in equation 4), scores divided by the square
    root of the head's width, no projection of query or output, and no biases. Every pair of a rate and a decay
    trains in one pass; the pair with the best held-out accuracy is kept. Departure from the papers: the pair is
    chosen on held-out images. The defaults have the settings of Table 11 on features that are computed once, which is
    quick; :meth:`table_11` and :meth:`table_a2` are the papers' protocols with their augmentations. The papers do not
    say whether the query, a vector, is decayed; here it is not.
    """

    reads: ClassVar[Literal["pooled", "tokens"]] = "tokens"
    reads_padding: ClassVar[bool] = True
    weight_decays: tuple[float, ...] = (0.1,)
    """Each is combined with every rate; arXiv:2411.14402 has 0.05 and 0.1."""
    num_heads: int | None = None
    """Heads of the query: the papers use as many as the trunk has. By default heads have 128 values, as in every
    released encoder. If the number does not divide the width (patches of raw pixels), the next smaller number that
    does is used."""
    max_train_images: int | None = None
    """Largest number of training images, including held-out ones; None uses all."""

    @classmethod
    def table_11(cls, *, imagenet: bool = False, **changes: Any) -> Self:
        """Return the protocol of arXiv:2401.08541, Table 11, with its augmentation.

        Args:
            imagenet: the column for ImageNet; otherwise the one for other data sets.
            **changes: other values of fields.

        >>> probe = AttentiveProbe.table_11(imagenet=True)
        >>> probe.protocol, probe.epochs, probe.augmentation.crop_scale
        ('Table 11 (ImageNet)', 50, (0.08, 1.0))
        """
        own = {"epochs": 50, "warmup_epochs": 5, "batch_size": 1024} if imagenet else {}
        return cls(**{"augmentation": PAPERS_AUGMENTATION, **own, **changes})

    @classmethod
    def table_a2(cls, *, imagenet: bool = False, **changes: Any) -> Self:
        """Return the protocol of arXiv:2411.14402, Table A2, with its augmentation.

        Args:
            imagenet: the column for ImageNet; otherwise the one for other data sets.
            **changes: other values of fields.

        >>> probe = AttentiveProbe.table_a2()
        >>> probe.protocol, len(probe.grid), probe.layers
        ('Table A2', 14, ())
        """
        own = {"warmup_epochs": 5, "batch_size": 1024} if imagenet else {}
        return cls.aimv2(**{"augmentation": PAPERS_AUGMENTATION, **own, **changes})

    @classmethod
    def aimv2(cls, **changes: Any) -> Self:
        """Return the settings of arXiv:2411.14402, Table A2: lower rates, two decays, the trunk's own output.

        The features are computed once, from images that are not augmented; see :meth:`table_a2`.
        """
        rates = (0.5e-4, 1e-4, 2e-4, 3e-4, 5e-4, 10e-4, 20e-4)
        return cls(**{"learning_rates": rates, "weight_decays": (0.05, 0.1), "layers": (), **changes})

    @classmethod
    def published(cls) -> Mapping[str, GridProbe]:
        """The columns of both papers' tables for ImageNet and for other data sets."""
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
        """Yield problems of the grid, and decays that are repeated or negative."""
        yield from super().problems()
        decays = self.weight_decays
        if not decays or len(set(decays)) < len(decays) or not all(decay >= 0 for decay in decays):
            yield Problem("weight_decays", f"must be distinct and not negative, got {decays}")
        elif max(decays) > limits.DECAY:
            yield Problem("weight_decays", f"must be at most {limits.DECAY:g}, got {decays}")
        if self.num_heads is not None:
            yield from at_least("num_heads", self.num_heads, 1, limits.HEADS)
        if self.max_train_images is not None:
            yield from at_least("max_train_images", self.max_train_images, 4, limits.IMAGES)

    def heads_of(self, width: int) -> int:
        """Return the number of heads for tokens of ``width``: ``num_heads`` (or heads of 128) if that divides it."""
        wanted = self.num_heads or -(-width // HEAD_WIDTH)
        return next(heads for heads in range(min(wanted, width), 0, -1) if width % heads == 0)

    def settled(self, shape: tuple[int, ...]) -> Mapping[str, Any]:
        """Describe the number of heads."""
        return {"num_heads": self.heads_of(shape[-1])}

    def module(self, shape: tuple[int, ...], num_classes: int, generator: Generator) -> GridModule:
        """Build queries, keys, values and classifiers for tokens ``[N, D]``; ``generator`` draws the weights."""
        from aimcore_probes.attentive_module import AttentiveGrid

        return AttentiveGrid(shape[-1], num_classes, len(self.grid), self.heads_of(shape[-1]), generator)
