"""Built-in decoders."""

from collections.abc import Sequence

from aimcore import Decoder, hookimpl
from aimcore_decoders.cross_attention import CrossAttentionDecoder
from aimcore_decoders.joint import JointDecoder
from aimcore_decoders.separate import SeparateDecoder


@hookimpl
def decoders() -> Sequence[type[Decoder]]:
    """Supply AIMv2's joint and separate decoders, and CapPa's cross-attention decoder."""
    return [JointDecoder, SeparateDecoder, CrossAttentionDecoder]


__all__ = ["CrossAttentionDecoder", "JointDecoder", "SeparateDecoder"]
