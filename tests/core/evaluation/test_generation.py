"""Captions are those that reading everything anew at each step would give, whatever batch they are written in."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest
import torch
from torch import Tensor
from vocabularies import write_clip_merges, write_sentencepiece

from aimcore import Batch, Images, InvalidValue, ObjectiveModule, Text, TextTokenizer, component
from aimcore.evaluation import NeverStops, Sampling, generate, learns_to_stop
from aimcore.evaluation.caption_generation import drawn_tokens
from aimcore.testing.fixtures import draw_nonzero, random_images
from aimcore.testing.requirements import seeded
from aimcore.testing.small_parts import StandInTrunk
from aimcore_decoders import CrossAttentionDecoder, JointDecoder, SeparateDecoder
from aimcore_objectives import CapPa, Captioning, Multimodal
from aimcore_tokenizers import BPE, Bytes, ClipBPE, SentencePiece

CONTEXT, TOKENIZER = 9, Bytes(supervise_end=True)
SMALL = {"width": 16, "depth": 2, "num_heads": 2}
SAME = {"tokenizer": TOKENIZER, "context_length": CONTEXT}
OBJECTIVES = (
    Captioning(decoder=JointDecoder(**SMALL), **SAME),
    Captioning(decoder=SeparateDecoder(**SMALL), **SAME),
    CapPa(decoder=CrossAttentionDecoder(**SMALL), **SAME),
    Multimodal(decoder=JointDecoder(**SMALL), prefix=2, **SAME),
)
IMAGES = random_images(number=6)


def built(objective) -> ObjectiveModule:
    with seeded(3):
        module = objective.build(StandInTrunk().build()).double()
    draw_nonzero(module)
    return module.eval()


def part(images: Images, *numbers: int) -> Images:
    chosen = list(numbers)
    return attrs.evolve(
        images, patches_BNF=images.patches_BNF[chosen], grids=tuple(images.grids[number] for number in chosen)
    )


@torch.no_grad()
def decoded_anew(module, images: Images) -> list[list[int]]:
    """Greedy captions by whole forwards, each over all that was written: no keys or values are kept."""
    ids_BT = torch.full((len(images.grids), CONTEXT), TOKENIZER.padding_id)
    for position in range(CONTEXT):
        text = Text(ids_BT=ids_BT, valid_BT=torch.ones_like(ids_BT, dtype=torch.bool))
        logits_BV = logits(module, images, text)[:, position]
        logits_BV[:, TOKENIZER.padding_id] = -torch.inf
        ids_BT[:, position] = logits_BV.argmax(-1)
    rows = ids_BT.tolist()
    return [row[: row.index(TOKENIZER.end_id) + 1] if TOKENIZER.end_id in row else row for row in rows]


def logits(module, images: Images, text: Text) -> Tensor:
    reading = module.evaluation_reading(Batch(images=images, sample_numbers_B=torch.arange(len(images.grids))))
    where_M = torch.arange(text.ids_BT.numel())
    decoded = module.decoder(module.trunk(images, reading), reading.attention, text, None, where_M)
    return decoded.logits_MV.reshape(*text.ids_BT.shape, -1)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda one: f"{one.name}-{one.decoder.name}")
def test_greedy_captions_are_those_of_whole_forwards(objective) -> None:
    module = built(objective)
    captions = generate(module, IMAGES, TOKENIZER, CONTEXT)
    assert [list(caption.ids) for caption in captions] == decoded_anew(module, IMAGES)
    assert len({caption.ids for caption in captions}) > 1


def test_a_drawn_caption_depends_on_its_key_and_not_on_its_batch() -> None:
    module, sampling = built(OBJECTIVES[0]), Sampling(temperature=2.0, seed=5)
    together = generate(module, IMAGES, TOKENIZER, CONTEXT, sampling, keys=range(10, 16))
    apart = generate(module, part(IMAGES, 4, 1), TOKENIZER, CONTEXT, sampling, keys=(14, 11))
    assert apart == [together[4], together[1]]
    other = generate(module, IMAGES, TOKENIZER, CONTEXT, sampling, keys=range(10, 16), draw=1)
    assert other != together


class ScriptedModule(ObjectiveModule):
    """Writes given tokens: one row per image, which its first pixel identifies."""

    def __init__(self, rows: list[list[int]], vocabulary_size: int = TOKENIZER.vocabulary_size) -> None:
        super().__init__()
        self.rows = torch.tensor(rows)
        self.vocabulary_size = vocabulary_size
        self.num_steps = 0

    def counts(self, batch): ...
    def forward(self, batch): ...

    def caption_start(self, batch):
        rows_BT = self.rows[batch.images.patches_BNF[:, 0, 0].long()]
        return self._logits(rows_BT), rows_BT

    def next_token(self, ids_B, state):
        self.num_steps += 1
        return self._logits(state[:, 1:]), state[:, 1:]

    def _logits(self, rows_BT):
        return torch.nn.functional.one_hot(rows_BT[:, 0], self.vocabulary_size).float()


def of_letters(text: str) -> list[int]:
    return [ord(letter) + 3 for letter in text]


def numbered(*numbers: int) -> Images:
    images = random_images(number=len(numbers))
    return attrs.evolve(images, patches_BNF=torch.tensor(numbers).float()[:, None, None].expand(-1, 12, 48))


def test_each_row_stops_at_its_own_end() -> None:
    end = TOKENIZER.end_id
    module = ScriptedModule([[*of_letters("ab"), end, *of_letters("xxx")], [*of_letters("abcd"), end, end]])
    captions = generate(module, numbered(0, 1), TOKENIZER, 6)
    assert [(caption.text, caption.ended) for caption in captions] == [("ab", True), ("abcd", True)]
    assert captions[0].ids == (*of_letters("ab"), end)
    assert module.num_steps == 4


def test_a_caption_that_does_not_end_is_cut() -> None:
    module = ScriptedModule([of_letters("abcdefgh")])
    (whole,) = generate(module, numbered(0), TOKENIZER, 6)
    (cut,) = generate(module, numbered(0), TOKENIZER, 6, max_tokens=2)
    assert (whole.text, whole.ended, cut.text, cut.ended) == ("abcdef", False, "ab", False)


def test_padding_is_never_written() -> None:
    (caption,) = generate(
        ScriptedModule([[TOKENIZER.padding_id, *of_letters("b"), TOKENIZER.end_id]]), numbered(0), TOKENIZER, 5
    )
    assert TOKENIZER.padding_id not in caption.ids


@component("pads_with_a_letter")
class PadsWithALetter(Bytes):
    """Bytes whose padding has the id of the letter a, so that only its position after the end identifies it."""

    @property
    def padding_id(self) -> int:
        return of_letters("a")[0]

    def decode(self, ids: Sequence[int]) -> str:
        return self.text_of(ids[: ids.index(self.end_id)] if self.end_id in ids else ids)


def test_padding_that_is_a_token_of_texts_too_is_written() -> None:
    tokenizer = PadsWithALetter(supervise_end=True)
    rows = tokenizer.encode(["banana", "b"], 8).ids_BT.tolist()
    captions = generate(ScriptedModule(rows), numbered(0, 1), tokenizer, 8)
    assert [caption.text for caption in captions] == ["banana", "b"]
    assert captions[1].ids == (*of_letters("b"), tokenizer.end_id)


def test_clip_writes_exclamation_marks(tmp_path: Path) -> None:
    tokenizer = ClipBPE.from_file(write_clip_merges(tmp_path), begin=False)
    tokenizer = attrs.evolve(tokenizer, supervise_end=True)
    row = tokenizer.encode(["wow!!"], 12).ids_BT[0].tolist()
    assert tokenizer.padding_id in row[: row.index(tokenizer.end_id)]
    (caption,) = generate(ScriptedModule([row], tokenizer.vocabulary_size), numbered(0), tokenizer, 12)
    assert (caption.text, list(caption.ids)) == ("wow !!", row[: len(caption.ids)])


def specials_written(tokenizer: TextTokenizer) -> tuple[bool, bool]:
    """Whether a model that writes padding, then the end, gets its padding, and its end."""
    script = ScriptedModule([[tokenizer.padding_id, tokenizer.end_id, tokenizer.end_id]], tokenizer.vocabulary_size)
    (caption,) = generate(script, numbered(0), tokenizer, 3)
    return tokenizer.padding_id in caption.ids, tokenizer.end_id in caption.ids


def test_of_all_tokenizers_clips_alone_may_write_its_padding(tmp_path: Path) -> None:
    texts = ["a red shoe", "two blue bags"]
    bpe = BPE.train(texts, tmp_path / "tokenizer.json", vocabulary_size=270)
    piece = SentencePiece.from_file(write_sentencepiece(tmp_path, texts))
    clip = ClipBPE.from_file(write_clip_merges(tmp_path))
    own = (bpe, attrs.evolve(piece, pads_with="padding"), TOKENIZER)
    learned = [attrs.evolve(one, supervise_end=True) for one in (*own, clip)]
    assert [specials_written(one) for one in learned] == [(False, True)] * 3 + [(True, True)]
    # Where the end pads as well, it ends the caption.
    (caption,) = generate(ScriptedModule([[1, 5, 5]]), numbered(0), attrs.evolve(piece, supervise_end=True), 3)
    assert (caption.ids, caption.ended) == ((1,), True)


def test_one_is_warned_that_a_model_never_learnt_to_stop() -> None:
    module = ScriptedModule([of_letters("abcdef")])
    with pytest.warns(NeverStops, match="'bytes' does not supervise its end, so the model never learnt"):
        generate(module, numbered(0), Bytes(), 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate(module, numbered(0), TOKENIZER, 6)
    assert learns_to_stop(TOKENIZER, 6)
    assert not learns_to_stop(Bytes(), 6)


def test_the_module_is_in_the_mode_it_was_in() -> None:
    module = built(OBJECTIVES[0]).train()
    generate(module, IMAGES, TOKENIZER, CONTEXT)
    assert all(part.training for part in module.modules())


# Probabilities 0.5, 0.25, 0.125, 0.125 of the tokens 2, 0, 1, 3.
LOGITS = (
    torch.log2(torch.tensor([[0.25, 0.125, 0.5, 0.125]], dtype=torch.float64)) * torch.log(torch.tensor(2.0)).double()
)


@pytest.mark.parametrize(
    ("sampling", "places", "tokens"),
    [
        (Sampling(), (0.0, 0.49, 0.51, 0.74, 0.76, 0.99), (2, 2, 0, 0, 1, 3)),
        (Sampling(top_k=2), (0.0, 0.66, 0.67, 0.99), (2, 2, 0, 0)),
        (Sampling(top_p=0.6), (0.0, 0.66, 0.67, 0.99), (2, 2, 0, 0)),
        (Sampling(top_p=0.5), (0.0, 0.99), (2, 2)),
        (Sampling(temperature=1e-3), (0.0, 0.999), (2, 2)),
        (Sampling(top_k=99), (0.99,), (3,)),
    ],
)
def test_tokens_are_drawn_by_their_probabilities(sampling: Sampling, places: tuple, tokens: tuple) -> None:
    drawn = drawn_tokens(LOGITS.expand(len(places), -1), sampling, torch.tensor(places, dtype=torch.float64))
    assert tuple(drawn.tolist()) == tokens


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_sampling_must_leave_something_to_draw_from(wrong: dict) -> None:
    with pytest.raises(InvalidValue, match=f"Sampling: {next(iter(wrong))}: must"):
        Sampling(**wrong)
