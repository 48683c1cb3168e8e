"""An objective that embeds and captions, and captioned images, for checks of evaluations.

Shape suffixes: B batch, D width, T text tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from aimcore.contracts.batches import Batch, Sample, Text
from aimcore.contracts.component import component
from aimcore.contracts.decoders import CaptionStart, DecoderState
from aimcore.contracts.features import Reading
from aimcore.contracts.images import Images
from aimcore.contracts.objectives import Objective, ObjectiveModule, Skill
from aimcore.contracts.results import Loss
from aimcore.contracts.sources import OpenSource, Source
from aimcore.contracts.tokenizers import TextTokenizer
from aimcore.contracts.trunks import TrunkModule

_LETTERS = " abcdefghijklmnopqrstuvwxyz0123456789"
_PADDING, _END, _FIRST = 0, 1, 2
_WORDS = ("red", "shoe", "bag", "coat")


@component("stand_in_letters")
class StandInLetters(TextTokenizer):
    """A tokenizer of letters and digits; end tokens are scored."""

    @property
    def vocabulary_size(self) -> int:
        """All characters, padding and the end token."""
        return _FIRST + len(_LETTERS)

    @property
    def end_id(self) -> int:
        """1."""
        return _END

    def encode(self, texts: Sequence[str], context_length: int) -> Text:
        """Encode each text, with an end token if it fits."""
        rows = [[_FIRST + _LETTERS.index(sign) for sign in text.lower() if sign in _LETTERS] for text in texts]
        cut = [[*row, _END][:context_length] for row in rows]
        ids_BT = torch.tensor([row + [_PADDING] * (context_length - len(row)) for row in cut]).long()
        return Text(ids_BT=ids_BT.reshape(len(texts), context_length), valid_BT=ids_BT != _PADDING)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the characters before the first end token."""
        kept = list(ids)[: list(ids).index(_END)] if _END in ids else ids
        return "".join(_LETTERS[token - _FIRST] for token in kept if token >= _FIRST)


@component("stand_in_speaker")
class StandInSpeaker(Objective):
    """An objective with the skills in ``gives``; its training is of no use."""

    gives: frozenset[str] = frozenset({"embed", "caption"})
    reads_text: bool = True

    @property
    def text(self) -> tuple[TextTokenizer, int] | None:
        """The tokenizer of letters, with 12 tokens."""
        return (StandInLetters(), 12) if self.reads_text else None

    @property
    def skills(self) -> frozenset[Skill]:
        """The skills in ``gives``."""
        return frozenset(skill for skill in ("embed", "caption") if skill in self.gives)

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        """Build the module."""
        return StandInSpeakerModule(trunk, self.skills)


class StandInSpeakerModule(ObjectiveModule):
    """Embeds images and texts as sums of vectors; predicts a token from the image and the token before it."""

    def __init__(self, trunk: TrunkModule, skills: frozenset[Skill]) -> None:
        super().__init__()
        self.trunk, self.skills = trunk, skills
        size = StandInLetters().vocabulary_size
        self.embedding, self.out = nn.Embedding(size, trunk.width), nn.Linear(trunk.width, size)
        self.dropout = nn.Dropout()

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """One target per image."""
        return {"spread": len(batch.images.grids)}

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """The mean of the squared tokens."""
        loss_B = self.trunk(batch.images, Reading()).tokens_BND.square().mean((1, 2))
        return {"spread": Loss(loss_B.sum(), torch.tensor(len(loss_B)))}

    def embed_images(self, images: Images) -> Tensor:
        """Unit vectors of images."""
        return functional.normalize(self._read("embed", images), dim=-1)

    def embed_texts(self, text: Text) -> Tensor:
        """Unit vectors of texts."""
        letters_BTD = self.embedding(text.ids_BT) * text.valid_BT.unsqueeze(-1)
        return functional.normalize(letters_BTD.sum(1), dim=-1)

    def caption_start(self, batch: Batch) -> CaptionStart:
        """Logits of the image."""
        image_BD = self._read("caption", batch.images)
        seen_BL = torch.ones(len(image_BD), 1, dtype=torch.bool)
        return CaptionStart(self.out(image_BD), DecoderState((), seen_BL, 1, image_BD.unsqueeze(1)))

    def next_token(self, ids_B: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Logits of the image and the token."""
        assert state.context_BND is not None
        logits_BV: Tensor = self.out(state.context_BND[:, 0] + self.embedding(ids_B))
        return logits_BV, state._replace(num_tokens=state.num_tokens + 1)

    def _read(self, skill: Skill, images: Images) -> Tensor:
        if skill not in self.skills:
            raise NotImplementedError(f"its objective cannot {skill}")
        image_BD: Tensor = self.dropout(self.trunk(images, Reading()).tokens_BND.mean(1))
        return image_BD


@component("stand_in_captioned")
class StandInCaptioned(Source):
    """A dozen coloured pictures of 8 x 8 px, with or without captions and labels; some captions occur twice."""

    captions: bool = True
    labels: bool = True

    def open(self) -> OpenSource:
        """Open the source; it has no files."""
        return _OpenCaptioned(captions=self.captions, labels=self.labels)


class _OpenCaptioned(OpenSource):
    def __init__(self, *, captions: bool, labels: bool) -> None:
        self.has_captions, self.has_labels = captions, labels
        self.class_names = _WORDS if labels else ()

    def __len__(self) -> int:
        return 12

    def read(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} samples, none has index {index}")
        label = index % len(_WORDS)
        image = torch.full((3, 8, 8), 20 * index, dtype=torch.uint8)
        image[label % 3, :4] = 255
        written = {"name": (f"{_WORDS[label]} {index // 5}",)} if self.has_captions else {}
        return Sample(image, f"picture {index}", written, label if self.has_labels else None, {"word": _WORDS[label]})
