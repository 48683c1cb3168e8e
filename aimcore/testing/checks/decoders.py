"""Decoders: the basics, until the decoders that come with aimcore settle the rest of their contract.

Shape suffixes: B batch, N patches, D width, M scored positions, K outputs.
"""

from __future__ import annotations

import torch

from aimcore.modules import DecoderModule
from aimcore.roles import Decoder
from aimcore.testing.checks import Check, modules
from aimcore.testing.material import GRID, NUM_IMAGES, random_features
from aimcore.testing.requirements import require, seeded, shape_of

_WIDTH, _OUTPUTS, _VOCABULARY, _CONTEXT = 16, 10, 32, 8
_EVERYWHERE = torch.arange(NUM_IMAGES * GRID.num_patches)


def check_patch_predictions_are_one_row_per_position(decoder: Decoder) -> None:
    """Without text, patch predictions are ``[M, K]`` and there are no token logits."""
    predictions_MK, logits_MV = _built(decoder)(random_features(_WIDTH), None, _EVERYWHERE, _EVERYWHERE[:0])
    good = predictions_MK is not None and predictions_MK.shape == (len(_EVERYWHERE), _OUTPUTS)
    require(good, f"patch predictions must be [{len(_EVERYWHERE)}, {_OUTPUTS}], got {shape_of(predictions_MK)}")
    require(logits_MV is None or not len(logits_MV), "there is no text, yet there are token logits")


def check_weights_follow_torchs_seed(decoder: Decoder) -> None:
    """``build`` draws fresh weights from torch's global generator alone, and never seeds it."""
    modules.weights_follow_torchs_seed(lambda: decoder.build(_WIDTH, _OUTPUTS, _VOCABULARY, _CONTEXT))


def check_nothing_is_random_in_evaluation(decoder: Decoder) -> None:
    """In evaluation mode the same features give the same predictions."""
    module, features = _built(decoder), random_features(_WIDTH)
    modules.nothing_is_random_in_evaluation(lambda: module(features, None, _EVERYWHERE, _EVERYWHERE[:0])[0])


CHECKS: tuple[Check, ...] = (
    check_patch_predictions_are_one_row_per_position,
    check_weights_follow_torchs_seed,
    check_nothing_is_random_in_evaluation,
)


def _built(decoder: Decoder) -> DecoderModule:
    with seeded():
        module: DecoderModule = modules.ready(decoder.build(_WIDTH, _OUTPUTS, _VOCABULARY, _CONTEXT))
    return module
