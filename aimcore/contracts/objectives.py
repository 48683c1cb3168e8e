"""Objectives: what is minimised."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
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
from aimcore.contracts.tokenizers import TextTokenizer
from aimcore.contracts.trunks import TrunkModule

Skill = Literal["embed", "caption"]
"""What modules of an objective can do once trained: embed images and texts in one space, or caption images.

Plugins may add skills of their own, by any other names, for evaluations of their own.
"""


class Objective(Component, ABC):
    """What is minimised. A component made of components: it names exactly the parts it needs."""

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
        """Further renderings of each sample that its module reads from ``batch.views``."""
        return ()

    @property
    def extras(self) -> tuple[Extra, ...]:
        """Values of ``Sample.extras`` that its module reads from ``batch.extras``."""
        return ()

    @property
    def text(self) -> tuple[TextTokenizer, int] | None:
        """The tokenizer and context length of ``batch.text``; None where no text is read."""
        return None

    @property
    def requires(self) -> frozenset[Capability | str]:
        """What it asks of a trunk; compared with :attr:`Trunk.capabilities` before anything is built."""
        return frozenset()

    @property
    def skills(self) -> frozenset[Skill | str]:
        """What its module can do besides giving losses."""
        return frozenset()

    @property
    def is_separable(self) -> bool:
        """Whether a batch's loss is the sum of its samples' losses; one that is not cannot be accumulated."""
        return True

    @property
    def any_grid(self) -> bool:
        """Whether it can train a trunk whose tokens have another grid than the patches (``Trunk.output_grid``)."""
        return False

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

    def probe_reading(self, batch: Batch) -> Reading:
        """How a probe should have the trunk read ``batch``: this objective's order (attention is the probe's own).

        Give :meth:`Ordering.orders` the batch's sample numbers and
        :data:`~aimcore.contracts.randomness.EVALUATION_SEED`.
        """
        return Reading()

    def reading(self, images: Images) -> Reading:
        """Deprecated: call and override :meth:`probe_reading`, which receives sample numbers too."""
        reading: Reading = call_replacement(self, "reading", "probe_reading", images)
        return reading


class PredictedPatches(NamedTuple):
    """What an objective takes the patches of a batch to look like, in raster order, for pictures.

    ``patches_BNF``: pixels as in ``batch.images``; of no meaning where ``predicted_BN`` is False, because the patch
    was given (or is padding).
    """

    patches_BNF: Tensor
    predicted_BN: Tensor


class ObjectiveModule(nn.Module, ABC):
    """A trunk with everything its training needs. ``forward(batch)`` is all the engine sees."""

    trunk: TrunkModule
    """The trunk that ``build(trunk)`` was given: probes read it, and weights are found by this name."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Accept classes that override :meth:`start_caption`."""
        super().__init_subclass__(**options)
        accept_override(cls, "start_caption", "caption_start")

    @abstractmethod
    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Number of scored targets per loss, known before any forward. Same names as the losses."""

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Loss]:
        """The losses of this batch."""

    def after_step(self, step: int, num_steps: int) -> None:
        """Move this module's own state, such as an average of the weights (an EMA teacher). Optional.

        Called on every rank once per update, not per micro-batch, without gradients. All of this module's parameters
        are whole and float32 during the call, at every ZeRO stage and precision, to be read: what this changes are
        buffers, which stay float32, whole and in checkpoints too. :func:`aimcore.layers.frozen_copy` makes a copy of a
        module whose weights are buffers, and :func:`aimcore.layers.move_average` moves it. No module is called here.

        What depends on data must be added up over ranks here, and be the same on all of them afterwards.

        Args:
            step: updates done, this one included.
            num_steps: updates that the whole run has.
        """

    def predicted_patches(self, batch: Batch) -> PredictedPatches:
        """The predictions behind the losses of this batch, as pixels. Optional, for pictures.

        Raises:
            NotImplementedError: this objective predicts no patches, or its target cannot be turned into pixels.
        """
        raise NotImplementedError(f"{type(self).__name__} predicts no patches that could be drawn")

    def embed_images(self, images: Images) -> Tensor:
        """``[B, E]`` of unit length: images in the space of their captions. Optional, see ``Objective.skills``.

        Raises:
            NotImplementedError: this objective embeds nothing.
        """
        raise NotImplementedError(f"{type(self).__name__} does not embed images")

    def embed_texts(self, text: Text) -> Tensor:
        """``[B, E]`` of unit length: captions in the space that images are in. Optional, see ``Objective.skills``.

        Raises:
            NotImplementedError: this objective embeds nothing.
        """
        raise NotImplementedError(f"{type(self).__name__} does not embed text")

    def caption_start(self, batch: Batch) -> CaptionStart:
        """Read the images of ``batch``, each once: logits of the first token, and the state to go on from.

        Optional, see ``Objective.skills``. Images are read as in evaluation: without a prefix, for example, if the
        prefix was random in training, and in the orders that belong to
        :data:`~aimcore.contracts.randomness.EVALUATION_SEED`. The batch may have no text.

        Raises:
            NotImplementedError: this objective writes no captions.
        """
        raise NotImplementedError(f"{type(self).__name__} writes no captions")

    def start_caption(self, images: Images) -> CaptionStart:
        """Deprecated: call and override :meth:`caption_start`, which receives sample numbers too."""
        start: CaptionStart = call_replacement(self, "start_caption", "caption_start", images)
        return start

    def next_token(self, ids_B: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Go on with the tokens ``ids_B``: logits ``[B, V]`` of the next one, and the next state."""
        raise NotImplementedError(f"{type(self).__name__} writes no captions")

    def caption_log_likelihoods(self, start: CaptionStart, text: Text) -> Tensor:
        """``[B]`` in nats: the log-probability of each caption's scored tokens (``valid_BT``), given its image.

        The images were read by :meth:`caption_start`, so that many captions of one image cost one reading of it: take
        ``start.at(rows)``, one row per caption. By default token by token.
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
