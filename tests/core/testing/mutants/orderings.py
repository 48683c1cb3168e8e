"""Orderings, each broken in one way."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from aimcore import Images, Ordering, PatchGrid, component
from aimcore.contracts.images import padded_orders
from aimcore.contracts.randomness import keyed_bits
from aimcore.testing.checks import orderings as checks


@component("sound")
class Sound(Ordering):
    """Raster order."""

    def permutation(self, grid: PatchGrid) -> Tensor:
        return torch.arange(grid.num_patches)


@component("mutant")
class Square(Sound):
    """Takes every grid for a square."""

    def permutation(self, grid: PatchGrid) -> Tensor:
        return torch.arange(grid.rows**2)


@component("mutant")
class Short(Sound):
    """Gives int32."""

    def permutation(self, grid: PatchGrid) -> Tensor:
        return torch.arange(grid.num_patches, dtype=torch.int32)


@component("mutant")
class Fickle(Sound):
    """Draws another order each time."""

    def permutation(self, grid: PatchGrid) -> Tensor:
        return torch.from_numpy(np.random.default_rng().permutation(grid.num_patches))


@component("mutant")
class Reseeding(Sound):
    """Seeds torch's global generator to be the same every time."""

    def permutation(self, grid: PatchGrid) -> Tensor:
        torch.manual_seed(0)
        return torch.randperm(grid.num_patches)


@component("sound_per_sample")
class SoundPerSample(Ordering):
    """A random order per sample."""

    def permutation(self, grid: PatchGrid) -> Tensor:
        return self.drawn(grid, 0, 0)

    def orders(self, images: Images, sample_numbers_B: Tensor, seed: int) -> Tensor:
        numbers = sample_numbers_B.tolist()
        return padded_orders([self.drawn(*one, seed) for one in zip(images.grids, numbers, strict=True)], images)

    def drawn(self, grid: PatchGrid, number: int, seed: int) -> Tensor:
        bits_N = keyed_bits(seed, f"order of {number}", np.arange(grid.num_patches))
        return torch.from_numpy(np.argsort(bits_N, kind="stable"))


@component("mutant")
class PaddingFirst(SoundPerSample):
    """Reverses orders with their padding."""

    def permutation(self, grid: PatchGrid) -> Tensor:
        return super().permutation(grid).flip(0)

    def orders(self, images: Images, sample_numbers_B: Tensor, seed: int) -> Tensor:
        return super().orders(images, sample_numbers_B, seed).flip(1)


@component("mutant")
class Forgetful(SoundPerSample):
    """Draws from numpy's generator anew each time, but for the first sample."""

    def drawn(self, grid: PatchGrid, number: int, seed: int) -> Tensor:
        if number == 0:
            return super().drawn(grid, 0, seed)
        return torch.from_numpy(np.random.default_rng().permutation(grid.num_patches))


@component("mutant")
class Placed(SoundPerSample):
    """Draws by the image's index in the batch."""

    def orders(self, images: Images, sample_numbers_B: Tensor, seed: int) -> Tensor:
        return super().orders(images, torch.arange(len(images.grids)), seed)


@component("mutant")
class Dazzled(SoundPerSample):
    """Reads bright images the other way round."""

    def drawn(self, grid: PatchGrid, number: int, seed: int) -> Tensor:
        return torch.arange(grid.num_patches)

    def orders(self, images: Images, sample_numbers_B: Tensor, seed: int) -> Tensor:
        if images.patches_BNF.device.type == "meta" or images.patches_BNF.mean() < 0.5:
            return super().orders(images, sample_numbers_B, seed)
        return padded_orders([torch.arange(grid.num_patches).flip(0) for grid in images.grids], images)


@component("mutant")
class Misleading(SoundPerSample):
    """Shows raster order in pictures."""

    def permutation(self, grid: PatchGrid) -> Tensor:
        return torch.arange(grid.num_patches)


@component("mutant")
class Stirring(SoundPerSample):
    """Draws something else from torch's global generator on the way."""

    def orders(self, images: Images, sample_numbers_B: Tensor, seed: int) -> Tensor:
        torch.rand(())
        return super().orders(images, sample_numbers_B, seed)


SOUND = (Sound(), SoundPerSample())
MUTANTS = (
    (checks.check_every_patch_is_read_once, Square()),
    (checks.check_the_permutation_is_int64_on_the_cpu, Short()),
    (checks.check_the_order_is_the_same_every_time, Fickle()),
    (checks.check_torchs_generator_is_left_alone, Reseeding()),
    (checks.check_torchs_generator_is_left_alone, Stirring()),
    (checks.check_every_image_is_read_in_an_order_of_its_own_patches, PaddingFirst()),
    (checks.check_an_order_depends_on_seed_and_sample_number_alone, Forgetful()),
    (checks.check_an_order_depends_on_seed_and_sample_number_alone, Placed()),
    (checks.check_an_order_depends_on_seed_and_sample_number_alone, Dazzled()),
    (checks.check_the_permutation_is_the_order_of_sample_0, Misleading()),
)
