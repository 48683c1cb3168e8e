"""The text inputs of a decoder: a begin vector and embedded tokens, with learned positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aimcore import Text


class TextInputs(nn.Module):
    """Inputs ``[B, T, D]`` of which the t-th predicts token t: the begin vector, then all tokens except the last.

    The learned begin vector comes before the caption. It is in the authors' training code only; the paper
    (arXiv:2411.14402, section 2.1) concatenates features and caption. There are ``context_length + 1`` positions, drawn
    from N(0, 0.01), as in that code; the last one would belong to an input that predicts nothing.
    """

    no_weight_decay = frozenset({"begin", "positions", "mask"})

    def __init__(self, vocabulary_size: int, context_length: int, width: int, *, with_mask: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, width)
        self.begin = nn.Parameter(torch.empty(width))
        self.positions = nn.Parameter(torch.empty(context_length + 1, width))
        self.mask = nn.Parameter(torch.empty(width)) if with_mask else None
        for parameter in (self.embedding.weight, self.begin, *([] if self.mask is None else [self.mask])):
            nn.init.normal_(parameter, std=0.02)
        nn.init.normal_(self.positions, std=0.01)

    def forward(self, text: Text) -> Tensor:
        """``[B, T, D]``; where ``text.masked_BT`` is True, the mask vector replaces the input that predicts token t.

        Raises:
            ValueError: the text is longer than the context.
        """
        batch, length = text.ids_BT.shape
        if length >= len(self.positions):
            raise ValueError(f"text of {length} tokens is longer than the context of {len(self.positions) - 1}")
        device = self.begin.device
        begin = self.begin.to(self.embedding.weight.dtype).expand(batch, 1, -1)
        # Shifted by one: the begin vector predicts the first token, and the last token predicts nothing.
        inputs_BTD = torch.cat([begin, self.embedding(text.ids_BT[:, :-1].to(device))], dim=1)
        if text.masked_BT is not None and self.mask is not None:
            inputs_BTD = torch.where(text.masked_BT.to(device).unsqueeze(-1), self.mask, inputs_BTD)
        return inputs_BTD + self.positions[:length]

    def first(self, batch: int) -> Tensor:
        """``[B, 1, D]``: the input that predicts the first token."""
        return (self.begin + self.positions[0]).expand(batch, 1, -1)

    def next(self, ids_BM: Tensor, num_before: int) -> Tensor:
        """``[B, M, D]``: the inputs made of M more tokens, which follow ``num_before`` inputs.

        Raises:
            ValueError: the text becomes longer than the context.
        """
        last = num_before + ids_BM.shape[1]
        if last >= len(self.positions):
            raise ValueError(f"text of {last} tokens is longer than the context of {len(self.positions) - 1}")
        inputs_BMD: Tensor = self.embedding(ids_BM) + self.positions[num_before:last]
        return inputs_BMD
