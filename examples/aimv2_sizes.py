"""What the studies of image sizes share: pre-training, and adaptation to larger images (arXiv:2411.14402, section 2.4).

Sizes are multiples of the usual one: 1 is 224 px in the paper and 32 px at ``small``, whose pictures are the
bundled emoji without their margins. They are drawn at 32 px: larger ones are not sharper, they have more patches.

Of the adaptation the paper gives the sizes, the 2 billion pairs without synthetic captions, and a weight decay of zero.
Its batch, rates and schedule are published nowhere: ours are those of pre-training, an ASSUMPTION.
"""

from typing import Any

import attrs
from aimv2_settings import IMAGENET, PAIRS, emoji, multimodal, optimizer, pairs, probe

from aimcore import Augmentation, Data, Engine, Experiment, NativeResolution, Scale, Schedule, Weights
from aimcore_optimizers import AdamW
from aimcore_sources import BundledEmoji, ImageFolder, Mixture, WebDataset
from aimcore_trunks import AIMV2_BATCH_SIZE, AIMV2_NUM_STEPS, AIMv2Size, ViT, aimv2, aimv2_schedule

ADAPTATION_PAIRS = 2_000_000_000
"""Samples of the high-resolution adaptation."""
SMALL_STEPS = {"pre-training": 500, "adaptation": 150}


def image_size(scale: Scale, factor: float) -> int:
    """Side of an image in pixels, ``factor`` times the usual one."""
    return round(factor * (224 if scale == "paper" else 32))


def pretrained(scale: Scale, name: str, *, size: AIMv2Size = "L", **changes: Any) -> Experiment:
    """AIMv2 at the usual size, on 12 billion pairs."""
    return _run(
        scale,
        name,
        "pre-training",
        trunk=trunk(scale, size, image_size(scale, 1)),
        data=data(scale, image_size(scale, 1)),
        optimizer=optimizer(scale, size),
        **changes,
    )


def adapted(
    scale: Scale,
    name: str,
    beginning: str,
    factor: float,
    *,
    size: AIMv2Size = "L",
    native: NativeResolution | None = None,
    **changes: Any,
) -> Experiment:
    """The run ``beginning`` goes on with images ``factor`` times as large, or of native resolution, and no decay.

    Positions are interpolated once, or fixed ones take their place.
    """
    pixels = image_size(scale, factor)
    settings = {
        "trunk": trunk(scale, size, pixels if native is None else None),
        "data": data(scale, pixels, native=native, synthetic=False),
        "optimizer": without_decay(optimizer(scale, size)),
        "initial_weights": Weights(experiment=beginning, part="all", resize=True),
    }
    return _run(scale, name, "adaptation", **{**settings, **changes})


def _run(scale: Scale, name: str, stage: str, **settings: Any) -> Experiment:
    paper_steps = {"pre-training": AIMV2_NUM_STEPS, "adaptation": ADAPTATION_PAIRS // AIMV2_BATCH_SIZE}
    num_steps = {"smoke": 4, "small": SMALL_STEPS[stage], "paper": paper_steps[stage]}[scale]
    return Experiment(
        **{
            "name": name,
            # Half as wide and two thirds as deep as usual below the paper's scale: the encoder is what is compared.
            "objective": multimodal(scale) if scale == "paper" else multimodal(scale, width=0.5, depth=2 / 3),
            "num_steps": num_steps,
            "schedule": aimv2_schedule() if scale == "paper" else Schedule(warmup_steps=num_steps // 20),
            "engine": Engine(zero_stage=1, precision="bf16") if scale == "paper" else Engine(),
            "probes": (probe(scale),),
            "checkpoint_every": 5_000 if scale == "paper" else None,
            **settings,
        }
    )


def trunk(scale: Scale, size: AIMv2Size, pixels: int | None) -> ViT:
    """AIMv2's encoder with learned positions for ``pixels``, which it interpolates for others; None: fixed ones."""
    if scale == "paper":
        return aimv2(size, image_size=pixels, interpolate=pixels is not None)
    smoke = {"L": (32, 1), "H": (48, 1), "1B": (64, 1), "3B": (80, 1)}
    small = {"L": (96, 4), "H": (128, 4), "1B": (160, 4), "3B": (192, 4)}
    width, depth = (smoke if scale == "smoke" else small)[size]
    learned = {} if pixels is None else {"positions": "learned", "grid": (pixels // 8,) * 2, "interpolate": True}
    return ViT(
        width=width, depth=depth, num_heads=4, patch_size=8, norm="rms_norm", norm_eps=1e-5, ffn="swiglu", **learned
    )


def data(scale: Scale, pixels: int, *, native: NativeResolution | None = None, synthetic: bool = True) -> Data:
    """Emoji of many aspect ratios, with their names; or the pairs of Table 2, probed on ImageNet."""
    if scale != "paper":
        return Data(
            train=emoji(scale, BundledEmoji(split="train", skin_tones=False, trim=True)),
            validation=emoji(scale, BundledEmoji(split="test", skin_tones=False, trim=True)),
            batch_size=16 if scale == "smoke" else 64,
            image_size=pixels,
            eval_crop=1.0,
            augmentation=Augmentation(crop_scale=(0.8, 1.0), flip_probability=0.0),
            caption_weights={"name": 1.0},
            native=native,
        )
    return Data(
        train=pairs() if synthetic else alt_texts(),
        validation=WebDataset(url=f"{PAIRS}/validation/*.tar"),
        probe_train=ImageFolder(url=f"{IMAGENET}/train"),
        probe_test=ImageFolder(url=f"{IMAGENET}/val"),
        batch_size=AIMV2_BATCH_SIZE,
        image_size=pixels,
        native=native,
        num_workers=8,
    )


def alt_texts() -> Mixture:
    """Table 2 without its synthetic captions, the rest in the same proportion."""
    shares = {"dfn": 30.0, "coyo": 9.0, "hqitp": 28.0}
    sources = tuple(WebDataset(url=f"{PAIRS}/{part}/*.tar", captions={"alt": "txt"}) for part in shares)
    return Mixture(sources=sources, weights=tuple(shares.values()))


def without_decay(settings: AdamW) -> AdamW:
    """The same optimiser with a weight decay of zero."""
    return attrs.evolve(settings, weight_decay=0.0)
