"""Scores of image-text pairs: the cosine between an image and its caption in the joint space of an encoder.

Shape suffixes: B samples that are scored, C channels, H W pixels, E embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aimcore.contracts.batches import Text
from aimcore.contracts.errors import AimcoreError, DataNotFound, InvalidValue
from aimcore.contracts.messages import printable
from aimcore.contracts.sources import OpenSource
from aimcore.data.captions import has_captions
from aimcore.encoders.embedding import Embedding, features_of, has_towers
from aimcore.encoders.encoder import Encoder
from aimcore.encoders.preprocessing import EncoderTransform
from aimcore.running.filter_reading import ReadSample, embedded


class CannotScore(AimcoreError):
    """The encoder gives a score that is not a number."""


def require_towers(encoder: Encoder) -> None:
    """Refuse an encoder that does not embed images and texts in one space.

    Raises:
        InvalidValue: it has no text tower.
    """
    if not has_towers(encoder):
        hint = "give an encoder that embeds images and texts (LiT, CLIP, SigLIP)"
        raise InvalidValue("filter", [("scores-by", f"{encoder.source.name} has no text tower: {hint}")])


def require_captions(source: OpenSource, kind: str | None) -> None:
    """Refuse a source without captions, of a kind if one is given.

    Raises:
        DataNotFound: the first samples have no caption of the kind.
    """
    if not has_captions(source, weights_of(kind)):
        what = "no captions" if kind is None else f"no captions of kind {kind!r}"
        raise DataNotFound(f"the first samples of the source have {what}: name the captions in the source as JSON")


def weights_of(kind: str | None) -> dict[str, float] | None:
    """Return the weights that select a kind of captions; None selects all."""
    return None if kind is None else {kind: 1.0}


class PairScorer:
    """Scores samples by the cosine between the image and the caption. The encoder is moved to a GPU if there is one."""

    def __init__(self, encoder: Encoder) -> None:
        """Take the encoder.

        Raises:
            InvalidValue: it has no text tower.
        """
        require_towers(encoder)
        self.encoder = encoder.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        self.transform: EncoderTransform = encoder.transform

    def scores(self, samples: Sequence[ReadSample], images_BE: Tensor | None = None) -> npt.NDArray[np.float64]:
        """Return ``[B]``.

        Args:
            samples: at least one; all can be read and have a caption.
            images_BE: what the encoder makes of the images, if that is known.

        Raises:
            CannotScore: a score is not a number.
        """
        if images_BE is None:
            images = [one.scored_CHW for one in samples if one.scored_CHW is not None]
            images_BE = embedded(images, self._images)
        texts_BE = self.encoder.embed_texts(self._text([str(one.caption) for one in samples], images_BE))
        found_B: npt.NDArray[np.float64] = (images_BE.double() * texts_BE.double()).sum(1).cpu().numpy()
        if not np.isfinite(found_B).all():
            wrong = printable(samples[int(np.flatnonzero(~np.isfinite(found_B))[0])].identifier)
            raise CannotScore(f"{self.encoder.source.name} gives {wrong} a score that is not a number")
        return found_B

    def _images(self, images: list[Tensor]) -> Tensor:
        return features_of(self.encoder, self.transform.normalized(images), Embedding(reads="joint"))

    def _text(self, texts: list[str], like: Tensor) -> Text:
        assert self.encoder.objective is not None
        assert self.encoder.objective.text is not None, "two towers read text"
        tokenizer, context_length = self.encoder.objective.text
        text = tokenizer.encode(texts, context_length)
        return Text(ids_BT=text.ids_BT.to(like.device), valid_BT=text.valid_BT.to(like.device))
