"""The named sizes of both papers."""

from __future__ import annotations

from typing import Literal

from aimcore_trunks.vit import ViT

AIMSize = Literal["0.6B", "1B", "3B", "7B"]
AIMv2Size = Literal["L", "H", "1B", "3B"]

# Width, depth, heads; every head has 128 values.
_AIM: dict[AIMSize, tuple[int, int, int]] = {
    "0.6B": (1536, 24, 12),
    "1B": (2048, 24, 16),
    "3B": (3072, 24, 24),
    "7B": (4096, 32, 32),
}
_AIMV2: dict[AIMv2Size, tuple[int, int, int]] = {
    "L": (1024, 24, 8),
    "H": (1536, 24, 12),
    "1B": (2048, 24, 16),
    "3B": (3072, 24, 24),
}


def aim(size: AIMSize) -> ViT:
    """Return AIM's encoder (arXiv:2401.08541, Table 1): heads of 128 values, sine-cosine positions, patches of 14 px.

    Raises:
        KeyError: the size is unknown.

    >>> aim("0.6B").width, aim("0.6B").depth
    (1536, 24)
    """
    width, depth, num_heads = _AIM[size]
    return ViT(width=width, depth=depth, num_heads=num_heads)


def aimv2(size: AIMv2Size, *, image_size: int | None = 224, interpolate: bool = False) -> ViT:
    """Return AIMv2's encoder (arXiv:2411.14402, Table 1): SwiGLU, RMSNorm, learned positions for ``image_size`` px.

    With ``image_size=None`` it has the native-resolution form, with sine-cosine positions (section 2.4). With
    ``interpolate`` it reads images of other sizes than ``image_size`` with interpolated positions (Table 6).

    Raises:
        KeyError: the size is unknown.
        ValueError: the image size is not a multiple of 14.

    >>> aimv2("L").width, aimv2("L").grid
    (1024, (16, 16))
    """
    width, depth, num_heads = _AIMV2[size]
    if image_size is not None and image_size % 14:
        raise ValueError(f"AIMv2 reads patches of 14 px: image_size must be a multiple of 14, got {image_size}")
    return ViT(
        width=width,
        depth=depth,
        num_heads=num_heads,
        norm="rms_norm",
        norm_eps=1e-5,
        ffn="swiglu",
        positions="sincos" if image_size is None else "learned",
        grid=None if image_size is None else (image_size // 14, image_size // 14),
        interpolate=interpolate,
    )
