"""Training of a discrete VAE, whose codes are targets of other objectives.

Shape suffixes: B batch, N patches, K codes, D width, R C rows and columns of the grid, C channels, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from aimcore import (
    AimcoreError,
    Batch,
    ImageTokenizer,
    Loss,
    Objective,
    ObjectiveModule,
    PredictedPatches,
    Problem,
    Reading,
    TrunkModule,
    at_least,
    component,
    positive,
)
from aimcore.contracts import limits
from aimcore.contracts.images import patchify, unpatchify
from aimcore.contracts.randomness import keyed_bits
from aimcore_objectives.steps import at_least_float32
from aimcore_tokenizers import DVAE
from aimcore_tokenizers.dvae import write_dvae
from aimcore_tokenizers.dvae_networks import Decoder, DVAEShape, Resampling, logit_laplace, with_margin
from aimcore_trunks.dvae_encoder import DVAEEncoderModule

_MOST_WEIGHT = 1e6


class NoPowerOfTwo(AimcoreError):
    """The trunk's patches have no size that a decoder of doublings can reach."""


class NotExportable(AimcoreError):
    """A discrete VAE has an encoder that the tokenizer does not have."""


@component("dvae", paper="arXiv:2102.12092, section 2.1 and appendix A.2")
class DiscreteVAE(Objective):
    """Train a discrete VAE: the trunk's tokens give logits of codes, from which a decoder of convolutions draws pixels.

    The loss is that of the paper: the negative log-density of the pixels under logit-Laplace distributions, for codes
    relaxed by Gumbel-softmax, plus the KL divergence of the codes to the uniform distribution, divided by the number of
    values of a patch (beta / 192 in the paper) times ``kl_weight``. Temperature and weight follow cosine schedules in
    updates. The total is a mean per pixel value.

    ``kl`` is reported too, in nats per code and with weight 0, and ``squared_error``: that of pixels from 0 to 1.
    Validation draws no noise: it takes the most likely code of each patch, and the final weight of the KL divergence.
    The paper also averages the weights over updates, which this objective does not do.

    With the trunk ``dvae_encoder`` it is the paper's network, and ``aimcore tokenizer export`` writes its tokenizer.
    Any other trunk can be trained too, if its patches have 2^n pixels per side.
    """

    num_codes: int = 8192
    decoder_width: int = 256
    """Channels of the decoder's last group of blocks; each group before has twice as many."""
    decoder_blocks: int = 2
    """Blocks per group of the decoder."""
    decoder_input: int = 128
    """Channels between the codes and the first block of the decoder."""
    decoder_resampling: Resampling = "pool"
    """Between two groups of the decoder: ``pool`` repeats each place four times, as DALL-E does; ``shuffle``, an extra
    of ours, moves channels to pixels. Narrow networks of few updates draw no details within a patch by repetition."""
    kl_weight: float = 6.6
    """Final weight of the KL divergence, beta."""
    kl_steps: int = 5000
    """Updates in which the weight grows from 0."""
    final_temperature: float = 1 / 16
    """Final temperature of the relaxation, which begins at 1."""
    temperature_steps: int = 150_000
    """Updates in which the temperature falls."""

    @property
    def mixed_grids(self) -> bool:
        """False: the decoder's convolutions draw all images of a batch on one grid."""
        return False

    def problems(self) -> Iterable[Problem]:
        """Yield sizes that no network has, and schedules that are none."""
        yield from at_least("num_codes", self.num_codes, 2, limits.CLASSES)
        yield from at_least("decoder_width", self.decoder_width, 4, 2**12)
        yield from at_least("decoder_blocks", self.decoder_blocks, 1, limits.DEPTH)
        yield from at_least("decoder_input", self.decoder_input, 1, limits.WIDTH)
        yield from at_least("kl_weight", self.kl_weight, 0, _MOST_WEIGHT)
        yield from at_least("kl_steps", self.kl_steps, 0, limits.STEPS)
        yield from positive("final_temperature", self.final_temperature, 1)
        yield from at_least("temperature_steps", self.temperature_steps, 0, limits.STEPS)

    def build(self, trunk: TrunkModule) -> DiscreteVAEModule:
        """Build the trunk with logits of codes and a decoder.

        Raises:
            NoPowerOfTwo: the patches of the trunk do not have 2^n pixels per side.
        """
        return DiscreteVAEModule(self, trunk)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Return a small discrete VAE."""
        return (cls(num_codes=6, decoder_width=4, decoder_blocks=1, decoder_input=4, kl_steps=2, temperature_steps=4),)


class DiscreteVAEModule(ObjectiveModule):
    """The module of :class:`DiscreteVAE`."""

    updates: Tensor

    def __init__(self, config: DiscreteVAE, trunk: TrunkModule) -> None:
        super().__init__()
        self.config = config
        self.trunk = trunk
        self.shape = _shape(config, trunk)
        self.logits = nn.Linear(trunk.width, config.num_codes)
        nn.init.normal_(self.logits.weight, std=1 / math.sqrt(trunk.width))
        nn.init.zeros_(self.logits.bias)
        self.decoder = Decoder(self.shape)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Return the number of patches."""
        number = batch.images.patches_BNF.shape[0] * batch.images.patches_BNF.shape[1]
        return dict.fromkeys(("reconstruction", "weighted_kl", "kl", "squared_error"), number)

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """Return the reconstruction and the KL divergence, with what is only reported."""
        logits_BNK = self._logits(batch)
        shares_BNK = self._relaxed(logits_BNK, batch) if self.training else _one_hot(logits_BNK)
        pixels_BCHW = self._pixels(batch).to(logits_BNK.dtype)
        statistics_B2HW = at_least_float32(self._decoded(shares_BNK, batch))
        negative_BCHW = logit_laplace(statistics_B2HW, with_margin(pixels_BCHW))
        error_BCHW = (self.decoder.pixels(statistics_B2HW.detach()) - pixels_BCHW).square()
        kl = _divergence(logits_BNK).sum()
        values = self.shape.stride**2 * self.shape.num_channels
        number = torch.tensor(self.counts(batch)["kl"], device=kl.device)
        return {
            "reconstruction": Loss(negative_BCHW.sum() / values, number),
            "weighted_kl": Loss(kl * self._kl_weight(kl), number, 1 / values),
            "kl": Loss(kl.detach(), number, 0.0),
            "squared_error": Loss(error_BCHW.sum() / values, number, 0.0),
        }

    def after_step(self, step: int, num_steps: int) -> None:
        """Count the updates, which both schedules follow."""
        self.updates.fill_(step)

    def predicted_patches(self, batch: Batch) -> PredictedPatches:
        """Return the pixels of the most likely codes: all patches are reconstructed."""
        statistics_B2HW = self._decoded(_one_hot(self._logits(batch)), batch)
        patches_BNF = patchify(self.decoder.pixels(at_least_float32(statistics_B2HW)), batch.images.patch_size)
        images = batch.images
        return PredictedPatches(images.normalized(patches_BNF.to(images.patches_BNF.dtype)), images.valid_BN)

    def export_tokenizer(self, path: Path, fitted_on: str) -> type[ImageTokenizer]:
        """Write the tokenizer ``dvae`` with these weights.

        Raises:
            NotExportable: the trunk is not the encoder of the tokenizer, or differs from the decoder in its sizes.
        """
        trunk = self.trunk
        if not isinstance(trunk, DVAEEncoderModule):
            raise NotExportable(
                "the tokenizer dvae has the encoder of the trunk 'dvae_encoder', and this run trained another trunk"
            )
        sizes, own = trunk.config, self.shape
        same = ("width", "groups", "blocks_per_group", "resampling")
        if any(getattr(sizes, name) != getattr(own, name) for name in same):
            raise NotExportable(
                "the tokenizer dvae has an encoder and a decoder of the same sizes and resampling; here trunk.width is "
                f"{sizes.width}, blocks_per_group {sizes.blocks_per_group} and resampling {sizes.resampling!r}, and "
                f"objective.decoder_width {own.width}, decoder_blocks {own.blocks_per_group} and decoder_resampling "
                f"{own.resampling!r}"
            )
        parts: dict[str, nn.Module] = {"encoder": trunk.encoder, "logits": self.logits, "decoder": self.decoder}
        state = {
            f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()
        }
        write_dvae(path, own, state, fitted_on=fitted_on)
        return DVAE

    def _logits(self, batch: Batch) -> Tensor:
        """``[B, N, K]``, at least in float32."""
        tokens_BND = self.trunk(batch.images, Reading()).tokens_BND
        return at_least_float32(self.logits(tokens_BND.relu()))

    def _relaxed(self, logits_BNK: Tensor, batch: Batch) -> Tensor:
        """``[B, N, K]``: samples of the Gumbel-softmax distribution (arXiv:1611.01144), drawn for each sample."""
        noise_BNK = _uniform(batch, logits_BNK)
        gumbel_BNK = -(-noise_BNK.log()).log()
        temperature = self._scheduled(logits_BNK, 1.0, self.config.final_temperature, self.config.temperature_steps)
        return ((logits_BNK + gumbel_BNK) / temperature).softmax(-1)

    def _decoded(self, shares_BNK: Tensor, batch: Batch) -> Tensor:
        grid = batch.images.grid
        shares_BRCK = shares_BNK.reshape(len(shares_BNK), grid.rows, grid.columns, -1)
        found: Tensor = self.decoder(shares_BRCK.to(self.logits.weight.dtype))
        return found

    def _pixels(self, batch: Batch) -> Tensor:
        """``[B, C, H, W]`` in [0, 1]."""
        images = batch.images
        return unpatchify(images.unit_patches_BNF, images.grid, images.patch_size).clamp(0, 1)

    def _kl_weight(self, like: Tensor) -> Tensor:
        if not self.training:
            return like.new_tensor(self.config.kl_weight)
        return self._scheduled(like, 0.0, self.config.kl_weight, self.config.kl_steps)

    def _scheduled(self, like: Tensor, first: float, last: float, steps: int) -> Tensor:
        """Return a value on half a cosine from ``first`` to ``last``, as a tensor, so that nothing waits for it."""
        done = (self.updates.to(like.dtype) / max(1, steps)).clamp(max=1.0) if steps else like.new_ones(())
        return last + (first - last) * (1 + torch.cos(math.pi * done)) / 2


def _shape(config: DiscreteVAE, trunk: TrunkModule) -> DVAEShape:
    groups = trunk.patch_size.bit_length()
    if trunk.patch_size != 2 ** (groups - 1):
        raise NoPowerOfTwo(
            f"objective 'dvae' decodes by doublings, and patches of {trunk.patch_size} px have no power of two: use "
            "patches of 4, 8 or 16 px"
        )
    return DVAEShape(
        num_codes=config.num_codes,
        width=config.decoder_width,
        groups=groups,
        blocks_per_group=config.decoder_blocks,
        decoder_input=config.decoder_input,
        num_channels=trunk.num_channels,
        resampling=config.decoder_resampling,
    )


def _one_hot(logits_BNK: Tensor) -> Tensor:
    codes_BN1 = logits_BNK.argmax(-1, keepdim=True)
    return torch.zeros_like(logits_BNK).scatter(-1, codes_BN1, 1.0)


def _divergence(logits_BNK: Tensor) -> Tensor:
    """``[B, N]``: KL divergence of the codes' distribution to the uniform one, in nats.

    >>> round(float(_divergence(torch.tensor([[[0.0, 0.0], [100.0, 0.0]]])).sum()), 4)  # 0 and ln 2
    0.6931
    """
    log_BNK = logits_BNK.log_softmax(-1)
    return (log_BNK.exp() * (log_BNK + math.log(logits_BNK.shape[-1]))).sum(-1)


def _uniform(batch: Batch, like_BNK: Tensor) -> Tensor:
    """``[B, N, K]`` numbers between 0 and 1 (exclusive), a function of (seed, sample number) on one kind of device."""
    if like_BNK.device.type == "meta":
        return torch.empty_like(like_BNK)
    seeds_B = keyed_bits(batch.seed, "gumbel", batch.sample_numbers_B.numpy()).astype("int64").tolist()
    generator = torch.Generator(like_BNK.device)
    drawn = []
    for seed in seeds_B:
        generator.manual_seed(seed)
        drawn.append(torch.rand(like_BNK.shape[1:], generator=generator, device=like_BNK.device))
    smallest = torch.finfo(torch.float32).tiny
    return torch.stack(drawn).clamp(smallest, 1 - 2**-24).to(like_BNK.dtype)
