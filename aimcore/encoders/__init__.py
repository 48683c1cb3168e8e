"""Encoders from files: any released file or run of one's own is opened, used, and handed on.

``load_encoder`` finds the layout of a file by its tensors, checks that every tensor is used and fits, and returns an
:class:`~aimcore.encoders.encoder.Encoder`.
"""

from aimcore.encoders.encoder import Encoder
from aimcore.encoders.loading import load_encoder
from aimcore.encoders.recognition import UnknownWeights

__all__ = ["Encoder", "UnknownWeights", "load_encoder"]
