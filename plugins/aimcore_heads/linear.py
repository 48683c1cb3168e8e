"""The linear head: the paper's "None"."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from aimcore import Attention, Features, Head, HeadModule, component
from aimcore.modeling.chunked_outputs import losses_in_chunks
from aimcore.modeling.layers import init_linears


@component("linear", paper='arXiv:2401.08541, Table 3e ("None")')
class LinearHead(Head):
    """A linear map from the trunk's normalised tokens to the outputs, without bias by default."""

    bias: bool = False

    def build(self, in_width: int, num_outputs: int) -> LinearHeadModule:
        """Build the module."""
        return LinearHeadModule(in_width, num_outputs, bias=self.bias)


class LinearHeadModule(HeadModule):
    """One linear layer."""

    def __init__(self, in_width: int, num_outputs: int, *, bias: bool) -> None:
        super().__init__()
        self.out = nn.Linear(in_width, num_outputs, bias=bias)
        init_linears(self)

    def forward(self, features: Features, attention: Attention, where_M: Tensor) -> Tensor:
        """``[M, K]`` predictions at ``where_M``."""
        tokens_MD, _ = features.at(where_M)
        predictions: Tensor = self.out(tokens_MD)
        return predictions

    def losses(
        self, features: Features, attention: Attention, where_M: Tensor, loss_of: Callable[[Tensor, slice], Tensor]
    ) -> Tensor:
        """``[M]`` losses at ``where_M``; many outputs are computed in chunks."""
        tokens_MD, _ = features.at(where_M)
        return losses_in_chunks(self.out, tokens_MD, self.out.out_features, loss_of)
