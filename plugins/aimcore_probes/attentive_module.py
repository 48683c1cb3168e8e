"""The module of the attentive probe.

Shape suffixes: G settings of the grid, H heads, E values per head, D width (D = H E), N patches, C classes;
lower-case b is a batch of samples.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Generator, Tensor, nn

from aimcore_probes.grid import GridModule

QUERY_STD = 0.02


class AttentiveGrid(GridModule):
    """G probes after one shared BatchNorm; each pools the tokens by the attention of one learned query.

    Equation 4 of arXiv:2401.08541 with the additions of the released probe: BatchNorm over channels without affine,
    scores divided by sqrt(E), a linear classifier without bias. It is computed in another order: because there
    is only one query, it is multiplied into the key weights (one vector per head), and tokens are averaged before the
    values are projected. Both are exact, and keys and values of single tokens are never computed.

    All settings start with equal weights: the query from N(0, 1) * 0.02, as released; matrices as in torch's Linear.
    """

    def __init__(self, width: int, num_classes: int, num_settings: int, num_heads: int, generator: Generator) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.BatchNorm1d(width, eps=1e-6, affine=False)
        query_D = QUERY_STD * torch.randn(width, generator=generator)
        self.query_GD = nn.Parameter(query_D.repeat(num_settings, 1))
        self.key_GDD = _linear(width, width, num_settings, generator)
        self.value_GDD = _linear(width, width, num_settings, generator)
        self.classifier_GCD = _linear(num_classes, width, num_settings, generator)

    def forward(self, features: Tensor) -> Tensor:
        """``[b, G, C]`` logits for tokens ``[b, N, D]``. Tokens of padding are NaN, and are ignored."""
        seen_bN = ~features[..., 0].isnan()
        if bool(seen_bN.all()):
            tokens_bND = self.norm(features.flatten(0, 1)).view_as(features)
            mean_bAD = self._mean_tokens(tokens_bND)
        else:
            # BatchNorm must not count padding: normalise only the tokens of images.
            tokens_bND = torch.zeros_like(features)
            tokens_bND[seen_bN] = self.norm(features[seen_bN])
            mean_bAD = self._mean_tokens(tokens_bND, seen_bN)
        pooled_GbD = self._values(mean_bAD)
        # The loss is faster if samples are the last axis in memory.
        logits_GCb = self.classifier_GCD @ pooled_GbD.transpose(1, 2)  # [G, C, D] x [G, D, b]
        return logits_GCb.permute(2, 0, 1)

    def _mean_tokens(self, tokens_bND: Tensor, seen_bN: Tensor | None = None) -> Tensor:
        """``[b, G H, D]``: for every head, the mean of the tokens, weighted by its attention."""
        settings, width = self.query_GD.shape
        query_GH1E = self.query_GD.reshape(settings, self.num_heads, 1, -1)
        key_GHED = self.key_GDD.reshape(settings, self.num_heads, -1, width)
        # q (W x) = (q W) x: multiply the query into the key weights once, instead of W into every token. A = G H.
        folded_AD = (query_GH1E @ key_GHED).reshape(-1, width) * (width // self.num_heads) ** -0.5
        score_bNA = tokens_bND @ folded_AD.T
        if seen_bN is not None:
            score_bNA = score_bNA.masked_fill(~seen_bN[..., None], -torch.inf)
        weight_bNA = score_bNA.softmax(1)
        mean_bAD: Tensor = weight_bNA.transpose(1, 2) @ tokens_bND
        return mean_bAD

    def _values(self, mean_bAD: Tensor) -> Tensor:
        """``[G, b, D]``: the heads' parts of the value projection, concatenated."""
        settings, width = self.query_GD.shape
        value_AED = self.value_GDD.reshape(settings * self.num_heads, -1, width)
        value_AbE = mean_bAD.transpose(0, 1) @ value_AED.transpose(1, 2)  # [A, b, D] x [A, D, E]
        value_GHbE = value_AbE.reshape(settings, self.num_heads, -1, value_AED.shape[1])
        return value_GHbE.transpose(1, 2).flatten(2)


def _linear(outputs: int, inputs: int, num_settings: int, generator: Generator) -> nn.Parameter:
    """Return the weights ``[G, outputs, inputs]`` of one fresh ``nn.Linear``, repeated for every setting."""
    bound = inputs**-0.5
    weight = (2 * torch.rand(outputs, inputs, generator=generator) - 1) * bound
    return nn.Parameter(weight.repeat(num_settings, 1, 1))


def released_attentive(state: Mapping[str, Tensor], num_heads: int) -> AttentiveGrid:
    """Return a released probe as a grid of one setting, in eval mode.

    Args:
        state: a state dict of the authors' layout; ``head.{cls_token, k.weight, v.weight, linear.weight}`` and
            ``head.bn.{running_mean, running_var, num_batches_tracked}`` are read.
        num_heads: number of heads of the trunk that the probe was trained on.

    Raises:
        KeyError: an entry is missing.
    """
    classes, width = state["head.linear.weight"].shape
    probe = AttentiveGrid(width, classes, 1, num_heads, Generator())
    own = {
        "query_GD": state["head.cls_token"].reshape(1, width),
        "key_GDD": state["head.k.weight"][None],
        "value_GDD": state["head.v.weight"][None],
        "classifier_GCD": state["head.linear.weight"][None],
    }
    own |= {f"norm.{key}": state[f"head.bn.{key}"] for key in ("running_mean", "running_var", "num_batches_tracked")}
    probe.load_state_dict(own)
    return probe.eval()
