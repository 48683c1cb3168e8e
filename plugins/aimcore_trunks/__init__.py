"""Built-in trunks."""

from collections.abc import Sequence

from aimcore import Trunk, hookimpl
from aimcore_trunks.dvae_encoder import DVAEEncoder
from aimcore_trunks.lora import LORA_WEIGHTS, LoRA
from aimcore_trunks.pretrained import Pretrained
from aimcore_trunks.random_features import RandomFeatures
from aimcore_trunks.recipes import (
    AIM_BATCH_SIZE,
    AIM_NUM_STEPS,
    AIMV2_BATCH_SIZE,
    AIMV2_NUM_STEPS,
    aim_optimizer,
    aim_schedule,
    aimv2_cooldown,
    aimv2_long_schedule,
    aimv2_optimizer,
    aimv2_schedule,
    clip_optimizer,
    clip_schedule,
)
from aimcore_trunks.released import from_released
from aimcore_trunks.sizes import AIMSize, AIMv2Size, aim, aimv2
from aimcore_trunks.torchvision_models import TorchvisionTrunk
from aimcore_trunks.vit import ViT


@hookimpl
def trunks() -> Sequence[type[Trunk]]:
    """The ViT of both papers, encoders from files, LoRA of any trunk, a discrete VAE's encoder, and baselines."""
    return [ViT, LoRA, DVAEEncoder, Pretrained, RandomFeatures, TorchvisionTrunk]


__all__ = [
    "AIMV2_BATCH_SIZE",
    "AIMV2_NUM_STEPS",
    "AIM_BATCH_SIZE",
    "AIM_NUM_STEPS",
    "LORA_WEIGHTS",
    "AIMSize",
    "AIMv2Size",
    "DVAEEncoder",
    "LoRA",
    "Pretrained",
    "RandomFeatures",
    "TorchvisionTrunk",
    "ViT",
    "aim",
    "aim_optimizer",
    "aim_schedule",
    "aimv2",
    "aimv2_cooldown",
    "aimv2_long_schedule",
    "aimv2_optimizer",
    "aimv2_schedule",
    "clip_optimizer",
    "clip_schedule",
    "from_released",
]
