"""Objectives: the losses that training minimises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from aimcore.contracts.batches import Batch, Extra, Text, View
from aimcore.contracts.component import Component
from aimcore.contracts.decoders import CaptionStart, DecoderState, log_probabilities
from aimcore.contracts.features import Capability, Reading
from aimcore.contracts.images import Images, PatchGrid
from aimcore.contracts.old_names import accept_old_property, old_property
from aimcore.contracts.old_overrides import accept_override, call_replacement
from aimcore.contracts.results import Loss
from aimcore.contracts.sources import OpenSource
from aimcore.contracts.tokenizers import ImageTokenizer, TextTokenizer
from aimcore.contracts.trunks import TrunkModule

Skill = Literal["embed", "caption"]
"""What a trained objective can do apart from its losses: embed images and texts in one space, or caption images.

Plugins may add skills with other names, for their own evaluations.
"""


class Objective(Component, ABC):
    """The losses that training minimises. Its fields are the components that it is built from."""

    __slots__ = ()
    role: ClassVar[str] = "objectives"
    can = old_property("can", "skills")
    needs = old_property("needs", "requires")

    def __init_subclass__(cls, **options: Any) -> None:
        """Accept classes that override :meth:`reading`, :attr:`can` or :attr:`needs`."""
        super().__init_subclass__(**options)
        accept_old_property(cls, "can", "skills")
        accept_old_property(cls, "needs", "requires")
        accept_override(cls, "reading", "probe_reading")

    @property
    def views(self) -> tuple[View, ...]:
        """Additional renderings of each sample that its module reads from ``batch.views``."""
        return ()

    @property
    def extras(self) -> tuple[Extra, ...]:
        """Values of ``Sample.extras`` that its module reads from ``batch.extras``."""
        return ()

    @property
    def text(self) -> tuple[TextTokenizer, int] | None:
        """The tokenizer and context length of ``batch.text``; None if it reads no text."""
        return None

    @property
    def requires(self) -> frozenset[Capability | str]:
        """The capabilities that it requires of a trunk; checked against :attr:`Trunk.capabilities` before a run."""
        return frozenset()

    @property
    def skills(self) -> frozenset[Skill | str]:
        """What its trained module can do apart from computing losses."""
        return frozenset()

    @property
    def is_separable(self) -> bool:
        """Whether a batch's loss is the sum of its samples' losses. If not, micro-batches cannot be accumulated."""
        return True

    @property
    def has_losses(self) -> bool:
        """Whether its module has losses. One without is for experiments that train nothing (``num_steps`` is 0)."""
        return True

    @property
    def any_grid(self) -> bool:
        """Whether it can train a trunk whose tokens and patches have different grids (``Trunk.output_grid``)."""
        return False

    @property
    def mixed_grids(self) -> bool:
        """Whether it can train on batches of images with different grids, as at native resolution."""
        return True

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        """Yield why this objective cannot train on images of ``grid`` (for example, a prefix as long as the image)."""
        return ()

    def problems_with_data(self, source: OpenSource) -> Iterable[str]:
        """Yield why this objective cannot train on or validate with ``source`` (for example, no labels)."""
        return ()

    @property
    def validation_prefix(self) -> int | None:
        """Prefix length of every validation loss, in patches; None if no prefix is configured."""
        return None

    @abstractmethod
    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        """Build the module: ``trunk`` with heads, decoders and towers."""

    def probe_reading(self, batch: Batch) -> Reading:
        """Return how the trunk reads ``batch`` for a probe: in this objective's order (the probe chooses attention).

        Call :meth:`Ordering.orders` with the batch's sample numbers and
        :data:`~aimcore.contracts.randomness.EVALUATION_SEED`.
        """
        return Reading()

    def reading(self, images: Images) -> Reading:
        """Deprecated: call and override :meth:`probe_reading`, which receives sample numbers too."""
        reading: Reading = call_replacement(self, "reading", "probe_reading", images)
        return reading


class PredictedPatches(NamedTuple):
    """An objective's predictions of the patches of a batch, in raster order, for pictures.

    ``patches_BNF``: pixels as in ``batch.images``. ``predicted_BN``: False where there is no prediction, because the
    patch was an input or is padding; ``patches_BNF`` is arbitrary there.
    """

    patches_BNF: Tensor
    predicted_BN: Tensor


class ObjectiveModule(nn.Module, ABC):
    """A trunk with everything that its training needs. The engine calls ``forward(batch)``."""

    trunk: TrunkModule
    """The trunk that ``build(trunk)`` received: probes read it, and files of weights use this name."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Accept classes that override :meth:`start_caption`."""
        super().__init_subclass__(**options)
        accept_override(cls, "start_caption", "caption_start")

    @abstractmethod
    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Return the number of scored targets per loss, without a forward pass; the names are those of the losses."""

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Loss]:
        """Return the losses of this batch by name."""

    def after_step(self, step: int, num_steps: int) -> None:
        """Update this module's own state, such as an average of the weights (an EMA teacher). Optional.

        The engine calls it on every rank once per update, not per micro-batch, without gradients. During the call all
        parameters of this module are whole and float32, at every ZeRO stage and precision. Only read them, and change
        buffers: buffers are always float32, whole and part of checkpoints. :func:`aimcore.layers.frozen_copy` copies a
        module with its weights as buffers, and :func:`aimcore.layers.move_average` updates that copy. Do not call a
        module here.

        State that depends on data must be summed over ranks here, so that it is the same on all ranks afterwards.

        Args:
            step: number of updates done, including this one.
            num_steps: number of updates of the whole run.
        """

    def predicted_patches(self, batch: Batch) -> PredictedPatches:
        """Return the predictions that the losses of this batch score, as pixels. Optional, for pictures.

        Raises:
            NotImplementedError: this objective predicts no patches, or its target cannot be converted to pixels.
        """
        raise NotImplementedError("this objective predicts no patches that could be drawn")

    def export_tokenizer(self, path: Path, fitted_on: str) -> type[ImageTokenizer]:
        """Write the image tokenizer that this module has trained to ``path``, and return its class. Optional.

        ``fitted_on`` says where its images came from, as JSON for the file.

        Raises:
            NotImplementedError: this objective trains no image tokenizer.
            AimcoreError: its parts cannot be exported.
        """
        raise NotImplementedError(f"{type(self).__name__} trains no image tokenizer")

    def embed_images(self, images: Images) -> Tensor:
        """Return ``[B, E]`` embeddings of images, of unit length, in the space of captions.

        Optional, for the skill ``"embed"``.

        Raises:
            NotImplementedError: this objective does not embed images.
        """
        raise NotImplementedError(f"{type(self).__name__} does not embed images")

    def embed_texts(self, text: Text) -> Tensor:
        """Return ``[B, E]`` embeddings of captions, of unit length, in the space of images.

        Optional, for the skill ``"embed"``.

        Raises:
            NotImplementedError: this objective does not embed text.
        """
        raise NotImplementedError(f"{type(self).__name__} does not embed text")

    def caption_start(self, batch: Batch) -> CaptionStart:
        """Read the images of ``batch``; return logits of the first token, and the state for the next.

        Optional, for the skill ``"caption"``. Images are read as in evaluation: for example, without a prefix if the
        prefix is random in training, and in the orders of :data:`~aimcore.contracts.randomness.EVALUATION_SEED`. The
        batch may have no text.

        Raises:
            NotImplementedError: this objective writes no captions.
        """
        raise NotImplementedError(f"{type(self).__name__} writes no captions")

    def start_caption(self, images: Images) -> CaptionStart:
        """Deprecated: call and override :meth:`caption_start`, which receives sample numbers too."""
        start: CaptionStart = call_replacement(self, "start_caption", "caption_start", images)
        return start

    def next_token(self, ids_B: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Read the tokens ``ids_B``; return logits ``[B, V]`` of the token after them, and the next state.

        Raises:
            NotImplementedError: this objective writes no captions.
        """
        raise NotImplementedError(f"{type(self).__name__} writes no captions")

    def caption_log_likelihoods(self, start: CaptionStart, text: Text) -> Tensor:
        """Return ``[B]`` in nats: the log-probability of each caption's scored tokens (``valid_BT``), given its image.

        Args:
            start: from :meth:`caption_start`, one row per caption. For several captions of an image, read it once and
                repeat its row: ``start.at(rows)``.
            text: the captions. The default reads them token by token.
        """
        total_B = torch.zeros(len(start.logits_BV), dtype=torch.float64, device=start.logits_BV.device)
        ids_BT, valid_BT = text.ids_BT.to(total_B.device), text.valid_BT.to(total_B.device)
        logits_BV, state = start
        for position in range(ids_BT.shape[1]):
            picked_B = log_probabilities(logits_BV, ids_BT[:, position])
            total_B += torch.where(valid_BT[:, position], picked_B.double(), 0.0)
            if position + 1 < ids_BT.shape[1]:
                logits_BV, state = self.next_token(ids_BT[:, position], state)
        return total_B
