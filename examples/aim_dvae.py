"""A discrete VAE whose codes are a target of AIM: arXiv:2401.08541, Table 3a, and arXiv:2102.12092.

    python -m aimcore.run examples/aim_dvae.py                          # two cores, a few minutes
    aimcore tokenizer export runs/aim-dvae-small/dvae --out dvae.safetensors

The paper takes the published encoder of DALL-E, which ``aimcore tokenizer convert`` reads. At ``small`` a narrow one
with 512 codes is trained on the bundled slice of Fashion-MNIST, with a code per 4 x 4 pixels; ``aim_targets.py`` reads
what this study gave (``assets/fashion_dvae.safetensors``). It moves pixels into channels between its groups instead of
pooling them: a narrow network with DALL-E's pooling learned the mean brightness of each patch, and no more.
The KL divergence counts from the first update: with a weight of 1 that grew over 100 updates, 38 codes were used and
their perplexity was 13; now 134 are, with a perplexity of 45 (the k-means of ``aim_targets.py``: 112). The mean squared
error of pixels is 0.017 (the mean of each patch: 0.034; k-means: 0.0045).

``paper`` is the published size on ImageNet, at the batch and rate of arXiv:2102.12092, appendix A.2, without its
average of weights.
"""

import attrs
from aim_settings import data, experiment

from aimcore import Augmentation, Engine, Scale, Schedule, Study
from aimcore_objectives import DiscreteVAE
from aimcore_optimizers import AdamW
from aimcore_trunks import DVAEEncoder

PAPER_STEPS = 3_000_000


def study(scale: Scale) -> Study:
    """One run."""
    num_steps = {"smoke": 4, "small": 1_000, "paper": PAPER_STEPS}[scale]
    if scale == "paper":
        trunk, objective = DVAEEncoder(), DiscreteVAE()
        settings = attrs.evolve(data(scale), image_size=256, batch_size=512)
        engine = Engine(zero_stage=1, precision="bf16")
        optimizer = AdamW(peak_lr=1e-4, weight_decay=1e-4, betas=(0.9, 0.999))
    else:
        width = 16 if scale == "small" else 8
        trunk = DVAEEncoder(width=width, groups=3, blocks_per_group=1, resampling="shuffle")
        steps = {"kl_steps": 0, "temperature_steps": 9 * num_steps // 10}
        objective = DiscreteVAE(
            num_codes=512, decoder_width=width, decoder_blocks=1, decoder_input=64, decoder_resampling="shuffle",
            kl_weight=3.0, **steps,
        )  # fmt: skip
        settings = attrs.evolve(data(scale), batch_size=32, augmentation=Augmentation(crop_scale=(0.6, 1.0)))
        engine, optimizer = Engine(), AdamW(peak_lr=6e-3, weight_decay=1e-4, betas=(0.9, 0.999))
    run = experiment(
        "dvae", scale, trunk=trunk, objective=objective, data=settings, num_steps=num_steps, engine=engine,
        optimizer=optimizer, schedule=Schedule(warmup_steps=num_steps // 40), probes=(),
    )  # fmt: skip
    return Study(name="aim-dvae", source="arXiv:2102.12092; arXiv:2401.08541, Table 3a", experiments=[run])
