"""Writing captions: greedy or drawn, a token at a time, with the keys and values of what was read kept.

Shape suffixes: B batch, V vocabulary.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import attrs
import numpy as np
import torch
from torch import Tensor

from aimcore.contracts.batches import Batch
from aimcore.contracts.component import Checked, at_least, settings, within
from aimcore.contracts.errors import Problem
from aimcore.contracts.images import Images
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.contracts.randomness import keyed_uniform
from aimcore.contracts.tokenizers import TextTokenizer
from aimcore.evaluation.eval_mode import held
from aimcore.evaluation.prompts import after_prompt, prompt_ids


class NeverStops(UserWarning):
    """A model was never taught where captions end."""


@settings
class Sampling(Checked):
    """How tokens are drawn from their probabilities."""

    temperature: float = 1.0
    """What logits are divided by: below 1 likely tokens get likelier."""
    top_k: int | None = None
    """Only so many of the likeliest tokens are drawn from."""
    top_p: float | None = None
    """Only the likeliest tokens are drawn from that together have this probability, the last of them included."""
    seed: int = 0

    def problems(self) -> Iterable[Problem]:
        """Something must be left to draw from."""
        if not self.temperature > 0:
            yield Problem("temperature", f"must be positive (greedy captions need no sampling), got {self.temperature}")
        else:
            yield from within("temperature", self.temperature, 1e-6, 1e6)  # float32 logits are divided by it
        if self.top_k is not None:
            yield from at_least("top_k", self.top_k, 1)
        if self.top_p is not None and not 0 < self.top_p <= 1:
            yield Problem("top_p", f"must lie above 0 and up to 1, got {self.top_p}")


@attrs.frozen
class Caption:
    """What was written of an image."""

    text: str
    ids: tuple[int, ...]
    """The tokens, the end included where it was written."""
    ended: bool
    """Whether it ended by itself, and was not cut."""


def learns_to_stop(tokenizer: TextTokenizer, context_length: int) -> bool:
    """Whether the end token is scored in training, so that a model learns where captions end."""
    text = tokenizer.encode(["a"], context_length)
    return tokenizer.end_id is not None and bool((text.valid_BT & (text.ids_BT == tokenizer.end_id)).any())


def generate(
    module: ObjectiveModule,
    images: Images,
    tokenizer: TextTokenizer,
    context_length: int,
    sampling: Sampling | None = None,
    *,
    keys: Sequence[int] | None = None,
    draw: int = 0,
    max_tokens: int | None = None,
    prompt: str | None = None,
) -> list[Caption]:
    """Write a caption of each image.

    Each ends at its first end token, or is cut at the context's length. Padding is never written, but where a token of
    texts has its id too. The module is held in evaluation mode, without gradients, and left as it was.

    Args:
        module: a module whose objective can ``"caption"``; whole, not partitioned by ZeRO stage 3.
        images: a batch, on the module's device.
        tokenizer: the objective's.
        context_length: the objective's.
        sampling: how tokens are drawn; None takes the likeliest.
        keys: a number per image, such as its sample number: the order it is read in depends on it, and what is drawn on
            the seed, the image's key and ``draw`` alone, whatever batch it is in; by default its index in the batch.
        draw: which of several captions of an image.
        max_tokens: stop after so many tokens, without those of the prompt.
        prompt: text that every caption begins with; the caption holds it too.

    Raises:
        InvalidValue: the prompt leaves no room in the context.

    Warns:
        NeverStops: the tokenizer does not supervise its end, so that the model was never taught to stop.
    """
    if not learns_to_stop(tokenizer, context_length):
        message = (
            f"tokenizer {tokenizer.name!r} does not supervise its end, so the model never learnt where captions end: "
            "they go on until they are cut. Train with supervise_end=True to write captions"
        )
        warnings.warn(message, NeverStops, stacklevel=2)
    prompted = () if prompt is None else prompt_ids(prompt, tokenizer, context_length)
    room = context_length - len(prompted)
    most = min(room, max_tokens or room)
    chooser = _Chooser(sampling, keys or range(len(images.grids)), draw)
    batch = Batch(images=images, sample_numbers_B=torch.tensor(list(chooser.keys), dtype=torch.int64))
    with held(module):
        ids_BT = _written(module, batch, tokenizer, most, chooser, prompted)
    return [_caption(row, tokenizer, prompted) for row in ids_BT.tolist()]


@attrs.frozen
class _Chooser:
    """Takes a token of each image's logits."""

    sampling: Sampling | None
    keys: Sequence[int]
    draw: int

    def __call__(self, logits_BV: Tensor, position: int) -> Tensor:
        if self.sampling is None:
            return logits_BV.argmax(-1)
        purpose = f"token {position} of caption {self.draw}"
        drawn_B = keyed_uniform(self.sampling.seed, purpose, np.asarray(self.keys, dtype=np.uint64))
        return drawn_tokens(logits_BV, self.sampling, torch.from_numpy(drawn_B))


def drawn_tokens(logits_BV: Tensor, sampling: Sampling, uniform_B: Tensor) -> Tensor:
    """``[B]``: the token at the place ``uniform_B`` (in [0, 1)) of the likeliest tokens' probabilities, added up."""
    sorted_BV, ids_BV = (logits_BV.double() / sampling.temperature).sort(dim=-1, descending=True, stable=True)
    if sampling.top_k is not None:
        sorted_BV[:, sampling.top_k :] = -torch.inf
    probabilities_BV = sorted_BV.softmax(-1)
    if sampling.top_p is not None:
        before_BV = probabilities_BV.cumsum(-1) - probabilities_BV
        probabilities_BV = probabilities_BV.masked_fill(before_BV >= sampling.top_p, 0.0)
    upto_BV = probabilities_BV.cumsum(-1)
    place_B1 = uniform_B.to(upto_BV)[:, None] * upto_BV[:, -1:]
    # Rounding could point behind the last token that has any probability.
    last_B = (probabilities_BV > 0).sum(-1) - 1
    chosen_B = torch.minimum((upto_BV <= place_B1).sum(-1), last_B)
    return ids_BV.gather(-1, chosen_B[:, None]).squeeze(-1)


def _written(
    module: ObjectiveModule,
    batch: Batch,
    tokenizer: TextTokenizer,
    most: int,
    choose: _Chooser,
    prompted: Sequence[int],
) -> Tensor:
    """``[B, T]`` ids, padding behind the end."""
    end, padding = tokenizer.end_id, tokenizer.padding_id
    logits_BV, state = after_prompt(module, module.caption_start(batch), prompted)
    ended_B = torch.zeros(len(logits_BV), dtype=torch.bool, device=logits_BV.device)
    never = torch.tensor(_never_written(tokenizer), dtype=torch.int64, device=logits_BV.device)
    written: list[Tensor] = []
    while True:
        written.append(torch.where(ended_B, padding, choose(logits_BV.index_fill(1, never, -torch.inf), len(written))))
        ended_B = ended_B | (written[-1] == end) if end is not None else ended_B
        if len(written) == most or bool(ended_B.all()):
            return torch.stack(written, dim=1)
        logits_BV, state = module.next_token(written[-1], state)


def _never_written(tokenizer: TextTokenizer) -> list[int]:
    """The padding's id, unless it is the end's, or that of a token of texts too: then it decodes to some text.

    CLIP's padding has the id of the exclamation mark within a word.
    """
    padding = tokenizer.padding_id
    return [] if padding == tokenizer.end_id or tokenizer.decode([padding]) else [padding]


def _caption(ids: list[int], tokenizer: TextTokenizer, prompted: Sequence[int]) -> Caption:
    ended = tokenizer.end_id in ids
    kept = ids[: ids.index(tokenizer.end_id) + 1] if tokenizer.end_id is not None and ended else ids
    whole = [*prompted, *kept]
    return Caption(tokenizer.decode(whole), tuple(whole), ended)
