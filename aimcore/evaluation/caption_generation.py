"""Caption generation: greedy or sampled, one token at a time, with cached keys and values.

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
from aimcore.evaluation.eval_mode import eval_mode_in_current_precision
from aimcore.evaluation.prompts import after_prompt, prompt_ids


class NeverStops(UserWarning):
    """A model was not trained to end captions."""


@settings
class Sampling(Checked):
    """Settings for sampling tokens."""

    temperature: float = 1.0
    """Divisor of the logits; values below 1 make likely tokens more likely."""
    top_k: int | None = None
    """Sample from this number of most likely tokens only."""
    top_p: float | None = None
    """Sample from the smallest set of most likely tokens that together have this probability."""
    seed: int = 0

    def problems(self) -> Iterable[Problem]:
        """Yield settings that are out of range."""
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
    """A generated caption of an image."""

    text: str
    ids: tuple[int, ...]
    """The tokens; they include the end token if it was generated."""
    ended: bool
    """Whether the caption has an end token; otherwise it was cut at the maximum length."""


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
    """Generate a caption of each image.

    Each ends at its first end token, or is cut at the context length. The padding token is never generated, unless its
    id is also that of a text token. The module runs in evaluation mode without gradients; its modes are restored.

    Args:
        module: a module whose objective has the skill ``"caption"``; not partitioned by ZeRO stage 3.
        images: a batch, on the module's device.
        tokenizer: the objective's tokenizer.
        context_length: the objective's context length.
        sampling: settings for sampling; None selects the most likely token.
        keys: a number per image, such as its sample number; by default its index in the batch. The reading order
            depends on it, and samples depend on the seed, the key and ``draw`` only, not on the batch.
        draw: index of the caption, to sample several captions of an image.
        max_tokens: maximum number of tokens after the prompt.
        prompt: text that every caption begins with; the returned caption includes it.

    Raises:
        InvalidValue: the prompt leaves no room in the context.

    Warns:
        NeverStops: the tokenizer does not supervise its end token, so the model was not trained to end captions.
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
    with eval_mode_in_current_precision(module):
        ids_BT = _written(module, batch, tokenizer, most, chooser, prompted)
    return [_caption(row, tokenizer, prompted) for row in ids_BT.tolist()]


@attrs.frozen
class _Chooser:
    """Chooses a token for each image, given its logits."""

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
    """Return ids ``[B]``: inverse transform sampling with ``uniform_B`` in [0, 1) from the allowed tokens."""
    sorted_BV, ids_BV = (logits_BV.double() / sampling.temperature).sort(dim=-1, descending=True, stable=True)
    if sampling.top_k is not None:
        sorted_BV[:, sampling.top_k :] = -torch.inf
    probabilities_BV = sorted_BV.softmax(-1)
    if sampling.top_p is not None:
        before_BV = probabilities_BV.cumsum(-1) - probabilities_BV
        probabilities_BV = probabilities_BV.masked_fill(before_BV >= sampling.top_p, 0.0)
    upto_BV = probabilities_BV.cumsum(-1)
    place_B1 = uniform_B.to(upto_BV)[:, None] * upto_BV[:, -1:]
    # Rounding could give an index after the last token with a positive probability.
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
    """Return ids ``[B, T]``, with padding after the end token."""
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
    """Return the padding's id, unless it is also the id of the end token or of a text token (it decodes to text).

    CLIP's padding has the id of the exclamation mark within a word.
    """
    padding = tokenizer.padding_id
    return [] if padding == tokenizer.end_id or tokenizer.decode([padding]) else [padding]


def _caption(ids: list[int], tokenizer: TextTokenizer, prompted: Sequence[int]) -> Caption:
    ended = tokenizer.end_id in ids
    kept = ids[: ids.index(tokenizer.end_id) + 1] if tokenizer.end_id is not None and ended else ids
    whole = [*prompted, *kept]
    return Caption(tokenizer.decode(whole), tuple(whole), ended)
