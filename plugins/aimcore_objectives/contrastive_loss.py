"""The contrastive losses of CLIP and SigLIP, over the images and captions of all ranks.

Shape suffixes: A images or captions of all ranks, B of this one, E width of embeddings.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from aimcore import Loss
from aimcore_objectives.gathering import from_all
from aimcore_objectives.logit_scale import LogitScale
from aimcore_objectives.steps import at_least_float32

ContrastiveKind = Literal["softmax", "sigmoid"]
"""CLIP's loss (arXiv:2103.00020) or SigLIP's (arXiv:2303.15343)."""


def contrastive_loss(
    kind: ContrastiveKind, scale: LogitScale, image_BE: Tensor, text_BE: Tensor, *, gather: bool
) -> Loss:
    """Return the loss of this rank's images and captions against those of all ranks, with one target per image.

    Args:
        kind: which loss.
        scale: makes logits of similarities.
        image_BE: embeddings of images, of unit length.
        text_BE: embeddings of their captions, of unit length.
        gather: whether the ranks share one loss. Gradients pass through the embeddings of all ranks.
    """
    loss = softmax_loss if kind == "softmax" else sigmoid_loss
    total = loss(scale, image_BE, text_BE, gather=gather)
    return Loss(total, torch.tensor(len(image_BE), device=total.device))


def initial_scale(kind: ContrastiveKind, *, bounded: bool) -> LogitScale:
    """Return the scale that training begins with: 1 / 0.07 in CLIP, 10 with a bias of -10 in SigLIP."""
    if kind == "softmax":
        return LogitScale(math.log(1 / 0.07), bounded=bounded)
    return LogitScale(math.log(10), -10.0, bounded=bounded)


def softmax_loss(scale: LogitScale, image_BE: Tensor, text_BE: Tensor, *, gather: bool) -> Tensor:
    """Half the cross-entropy of each image's caption and of each caption's image, summed over this rank's."""
    (all_images_AE, first), (all_texts_AE, _) = from_all(image_BE, gather), from_all(text_BE, gather)
    own_B = first + torch.arange(len(image_BE), device=image_BE.device)
    # Both directions in one call, so that the scale has a single gradient, which is checked against its bounds.
    queries_2BE, keys_2AE = torch.stack([image_BE, text_BE]), torch.stack([all_texts_AE, all_images_AE])
    logits_2BA = scale(_similarities(queries_2BE, keys_2AE), gather=gather)
    return functional.cross_entropy(logits_2BA.flatten(0, 1), own_B.repeat(2), reduction="sum") / 2


def sigmoid_loss(scale: LogitScale, image_BE: Tensor, text_BE: Tensor, *, gather: bool) -> Tensor:
    """The log-loss of every pair of this rank's images and all captions."""
    all_texts_AE, first = from_all(text_BE, gather)
    logits_BA = scale(_similarities(image_BE, all_texts_AE), gather=gather)
    sign_BA = torch.full_like(logits_BA, -1)
    sign_BA[torch.arange(len(image_BE)), first + torch.arange(len(image_BE))] = 1
    return -functional.logsigmoid(sign_BA * logits_BA).sum()


def _similarities(queries_BE: Tensor, keys_AE: Tensor) -> Tensor:
    """``[..., B, A]``, at least float32: autocast would round them to bfloat16, and the scale enlarges the error."""
    with _without_autocast(queries_BE.device.type):
        return at_least_float32(queries_BE) @ at_least_float32(keys_AE).mT


def _without_autocast(device_type: str) -> AbstractContextManager[None]:
    # The meta device, on which a dry run counts, has no autocast, and disabling it there is an error.
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)
