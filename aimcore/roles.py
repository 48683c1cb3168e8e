"""The roles: what kinds of part an experiment is made of. A plugin subclasses one and decorates it as a component.

Shape suffixes are those of :mod:`aimcore.values`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aimcore.component import Component

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Generator, Tensor

    from aimcore.modules import DecoderModule, HeadModule, ObjectiveModule, TrunkModule
    from aimcore.values import Ability, Batch, Images, LabelledFeatures, PatchGrid, Reading, Sample, Text, View


class Ordering(Component, ABC):
    """The order in which an autoregressive encoder reads the patches of an image."""

    __slots__ = ()
    role: ClassVar[str] = "orderings"

    @abstractmethod
    def permutation(self, grid: PatchGrid) -> Tensor:
        """``[N]`` int64: the raster index of the patch read at each step. Any rectangle must do."""


class Target(Component, ABC):
    """What a patch is predicted as: its pixels, normalised pixels, or a code."""

    __slots__ = ()
    role: ClassVar[str] = "targets"

    @property
    def views(self) -> tuple[View, ...]:
        """Extra renderings of the crop that :meth:`values` reads from ``batch.views``."""
        return ()

    @abstractmethod
    def num_outputs(self, patch_size: int, num_channels: int) -> int:
        """K: how many numbers a head predicts per patch."""

    @abstractmethod
    def values(self, batch: Batch) -> Tensor:
        """``[B, N, F]`` values or ``[B, N]`` codes per patch, in raster order."""

    @abstractmethod
    def loss(self, predictions_MK: Tensor, values_M: Tensor) -> Tensor:
        """``[M]`` one loss per scored patch; ``values_M`` are rows of :meth:`values`."""

    def to_patches(self, predictions_BNK: Tensor, patches_BNF: Tensor) -> Tensor:
        """``[B, N, F]`` pixels of predictions, for pictures.

        ``patches_BNF`` are the true patches, for targets that keep less than the pixels (a normalised target needs
        the patch's own mean and variance, which leaks both into the picture).

        Raises:
            NotImplementedError: this target cannot be drawn.
        """
        raise NotImplementedError(f"target {self.name!r} cannot be turned into pixels")


class Tokenizer(Component, ABC):
    """Anything that gives discrete ids. Subclass :class:`ImageTokenizer` or :class:`TextTokenizer`."""

    __slots__ = ()
    role: ClassVar[str] = "tokenizers"


class ImageTokenizer(Tokenizer):
    """Gives every patch of a view a code."""

    __slots__ = ()

    @property
    @abstractmethod
    def num_codes(self) -> int:
        """Size of the code book."""

    @abstractmethod
    def encode(self, view_BCHW: Tensor, grid: PatchGrid) -> Tensor:
        """``[B, N]`` int64 codes in raster order."""

    @abstractmethod
    def decode(self, ids_BN: Tensor) -> Tensor:
        """Pixels for codes, as far as the tokenizer can."""


class TextTokenizer(Tokenizer):
    """Gives text a sequence of ids: a begin token (where there is one), the text, an end token, padding."""

    __slots__ = ()

    @property
    @abstractmethod
    def vocabulary_size(self) -> int:
        """V: number of ids, special ones included. It reads the tokenizer's file, where there is one.

        Raises:
            AimcoreError: the file is missing or another than recorded, or a library is not installed.
        """

    @property
    def sha256(self) -> str | None:
        """Hash of the file it was fitted to; None where there is none. A field of that name will do."""
        return None

    @property
    def begin_id(self) -> int | None:
        """The id that stands before every text; None where none does."""
        return None

    @property
    def end_id(self) -> int | None:
        """The id that stands behind every text, cut or not; None where none does. It may be the padding's too."""
        return None

    @property
    def padding_id(self) -> int:
        """What fills a row up behind the end."""
        return 0

    @abstractmethod
    def encode(self, texts: Sequence[str], context_length: int) -> Text:
        """Ids of ``texts``, cut and padded at the end to ``context_length``; ``valid_BT`` marks what is scored."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids up to the first end, without special ones."""


class Head(Component, ABC):
    """A prediction head between trunk and loss, discarded after pre-training."""

    __slots__ = ()
    role: ClassVar[str] = "heads"

    @abstractmethod
    def build(self, in_width: int, num_outputs: int) -> HeadModule:
        """The module: tokens of width ``in_width`` in, ``num_outputs`` numbers per scored position out."""


class Decoder(Component, ABC):
    """A decoder that reads image features, with or without text."""

    __slots__ = ()
    role: ClassVar[str] = "decoders"

    @property
    def predicts_patches(self) -> bool:
        """Whether it predicts patches besides text."""
        return True

    @abstractmethod
    def build(self, in_width: int, num_outputs: int, vocabulary_size: int, context_length: int) -> DecoderModule:
        """The module: image features of width ``in_width`` in, patch values and token logits out.

        ``num_outputs`` 0 builds one that predicts no patches.
        """


class Trunk(Component, ABC):
    """The encoder: what is trained, probed and exported."""

    __slots__ = ()
    role: ClassVar[str] = "trunks"

    @property
    def can(self) -> frozenset[Ability]:
        """What it can read beyond a uniform batch, bidirectionally, in raster order."""
        return frozenset()

    @property
    @abstractmethod
    def patch_size(self) -> int:
        """Side of a square patch, in pixels."""

    @abstractmethod
    def build(self) -> TrunkModule:
        """The module, with fresh weights drawn from torch's global generator."""

    def convert(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The state of this trunk's module from that of another layout, such as its authors' own. Optional.

        Tensors may be on the meta device: only names and shapes are asked for then.

        Raises:
            NotImplementedError: this trunk reads no other layout.
            AimcoreError: the state is in none that it reads.
        """
        raise NotImplementedError(f"trunk {self.name!r} reads no other layout than its own")

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        """Yield why this trunk cannot read images of ``grid`` (for example, learned positions of another size)."""
        return ()


class Objective(Component, ABC):
    """What is minimised. A component made of components: it names exactly the parts it needs."""

    __slots__ = ()
    role: ClassVar[str] = "objectives"

    @property
    def views(self) -> tuple[View, ...]:
        """Extra renderings of each crop that its module reads from ``batch.views``."""
        return ()

    @property
    def text(self) -> tuple[TextTokenizer, int] | None:
        """The tokenizer and context length of ``batch.text``; None where no text is read."""
        return None

    @property
    def needs(self) -> frozenset[Ability]:
        """What it asks of a trunk; compared with :attr:`Trunk.can` before anything is built."""
        return frozenset()

    @property
    def is_separable(self) -> bool:
        """Whether a batch's loss is the sum of its samples' losses; one that is not cannot be accumulated."""
        return True

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        """Yield why this objective cannot train on images of ``grid`` (for example, a prefix as long as the image)."""
        return ()

    def problems_with_data(self, source: OpenSource) -> Iterable[str]:
        """Yield why this objective cannot train on or be validated with samples of ``source`` (no labels, say)."""
        return ()

    @property
    def validation_prefix(self) -> int | None:
        """Prefix length used by every validation loss; None where no prefix is configured."""
        return None

    @abstractmethod
    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        """The trunk together with heads, decoders and towers."""

    def reading(self, images: Images) -> Reading:
        """How a probe should have the trunk read ``images``: this objective's order (attention is the probe's own)."""
        from aimcore.values import Reading

        return Reading()


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
    """Of one sample's features: ``(D,)`` pooled, ``(N, D)`` tokens."""

    @abstractmethod
    def pieces(self, generator: Generator | None = None) -> Iterator[LabelledFeatures]:
        """Every sample once, a bounded number at a time: in a fixed order, or in one that ``generator`` draws."""

    def read(self) -> LabelledFeatures:
        """All samples at once, in memory."""
        import torch

        from aimcore.values import LabelledFeatures

        pieces = tuple(self.pieces())
        features = [piece.features for piece in pieces] or [torch.zeros(0, *self.shape)]
        labels = [piece.labels for piece in pieces] or [self.labels]
        return LabelledFeatures(features=torch.cat(features), labels=torch.cat(labels), num_classes=self.num_classes)


class Probe(Component, ABC):
    """A classifier on the frozen trunk."""

    __slots__ = ()
    role: ClassVar[str] = "probes"
    reads: ClassVar[Literal["pooled", "tokens"]] = "pooled"
    holds_out: ClassVar[bool] = True
    """Whether it chooses between settings. One that does not gets all images to train on, and no held-out ones."""

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


class Source(Component, ABC):
    """Images by index, with whatever is known about them. Random access, always."""

    __slots__ = ()
    role: ClassVar[str] = "sources"

    @abstractmethod
    def open(self) -> OpenSource:
        """Find the data and make it readable.

        Raises:
            AimcoreError: the data is not there; the message says where it was looked for and how to get it.
        """


class OpenSource(ABC):
    """A source that is ready to be read. It must survive pickling, for data workers."""

    class_names: tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def read(self, index: int) -> Sample:
        """The sample at ``index``.

        Raises:
            UnreadableSample: this one is damaged; the loader goes on without it, within a limit.
        """

    def label(self, index: int) -> int | None:
        """The label at ``index``; override it where that is cheaper than reading the image."""
        return self.read(index).label

    def indices_of(self, sample_numbers: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
        """The index that training reads for each sample number: every index once per epoch, in another order each.

        Override it to sample otherwise (mixtures do). It must be a pure function: resumption rests on it.
        """
        from aimcore.data.sampling import index_of

        return index_of(sample_numbers, len(self), seed)


class TrackerRun(ABC):
    """One run's open line to a tracker."""

    @abstractmethod
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of a step."""

    @abstractmethod
    def close(self, status: str) -> None:
        """The run ended: ``"finished"``, ``"interrupted"`` or ``"failed"``."""


class Tracker(Component, ABC):
    """Where a run's metrics go besides its own ``metrics.jsonl``."""

    __slots__ = ()
    role: ClassVar[str] = "trackers"

    @abstractmethod
    def open(self, folder: str, recipe: Mapping[str, Any], resume_step: int) -> TrackerRun:
        """Begin to track the run in ``folder``; ``resume_step`` > 0 continues one (drop what lies beyond it)."""


ROLES: tuple[type[Component], ...] = (
    Tokenizer, Ordering, Target, Head, Decoder, Probe, Objective, Trunk, Source, Tracker,
)  # fmt: skip
