"""Fixed position vectors of patches."""

from __future__ import annotations

import torch
from torch import Tensor


def sincos_positions(positions_BN2: Tensor, width: int) -> Tensor:
    """Return fixed 2-D sine-cosine positions ``[..., width]`` of places ``[..., 2]`` = (row, column), float32.

    The first half of the channels encodes the column, the second half the row; in each half all sines come first, then
    all cosines; frequency k is 10000^(-k / (width / 4)). Source: the released encoders of arXiv:2401.08541.

    Raises:
        ValueError: the width is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"sine-cosine positions need a width that is a multiple of 4, got {width}")
    quarter = width // 4
    exponents = torch.arange(quarter, dtype=torch.float64, device=positions_BN2.device) / quarter
    angles = positions_BN2.to(torch.float64).unsqueeze(-1) / 10000**exponents
    row, column = angles.unbind(-2)
    return torch.cat([column.sin(), column.cos(), row.sin(), row.cos()], dim=-1).to(torch.float32)
