"""The sizes at which training steps are measured, and their batches."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import attrs
import torch

from aimcore import Batch, Data, Experiment, Objective, PatchGrid, Text
from aimcore.contracts.images import Images
from aimcore.testing.small_parts import StandInSource
from aimcore_decoders import JointDecoder
from aimcore_heads import MLPHead
from aimcore_objectives import Multimodal, NextPatch
from aimcore_tokenizers import GivenIds
from aimcore_trunks import ViT

STUDY = Path(__file__).parent.parent / "examples" / "ablation_pattern.py"
IMAGE_SIZE = 224
VOCABULARY = 49_408
"""Of CLIP's tokenizer, as in AIMv2."""


@attrs.frozen
class Size:
    """A model and its batch."""

    name: str
    experiment: Callable[[], Experiment]

    def batch(self, experiment: Experiment, number: int) -> Batch:
        """Return the images of step ``number``, of normal noise, with captions of the full length."""
        data, patch_size = experiment.data, experiment.trunk.patch_size
        generator, side = torch.Generator().manual_seed(number), data.image_size // patch_size
        assert isinstance(experiment.trunk, ViT)
        channels = experiment.trunk.num_channels
        text = None
        if experiment.objective.text is not None:
            tokenizer, length = experiment.objective.text
            ids_BT = torch.randint(tokenizer.vocabulary_size, (data.batch_size, length), generator=generator)
            text = Text(ids_BT=ids_BT, valid_BT=torch.ones_like(ids_BT, dtype=torch.bool))
        patches_BNF = torch.randn(data.batch_size, side**2, patch_size**2 * channels, generator=generator)
        images = Images(
            patches_BNF=patches_BNF, grids=(PatchGrid(side, side),) * data.batch_size, patch_size=patch_size
        )
        numbers_B = torch.arange(data.batch_size) + data.batch_size * number
        return Batch(images=images, sample_numbers_B=numbers_B, text=text)


def _small() -> Experiment:
    experiment: Experiment = runpy.run_path(str(STUDY))["study"]("small").experiments[0]
    return attrs.evolve(experiment, objective=attrs.evolve(experiment.objective, prefix="uniform"))


def _at_224(trunk: ViT, objective: Objective, batch_size: int) -> Experiment:
    source = StandInSource()
    data = Data(train=source, validation=source, batch_size=batch_size, image_size=IMAGE_SIZE)
    return Experiment(name="step", data=data, trunk=trunk, objective=objective, num_steps=1_000)


def _medium() -> Experiment:
    trunk = ViT(width=384, depth=6, num_heads=3)
    return _at_224(trunk, NextPatch(head=MLPHead(width=512, depth=6)), batch_size=8)


def _base() -> Experiment:
    trunk = ViT(width=768, depth=12, num_heads=6)
    return _at_224(trunk, NextPatch(head=MLPHead(width=768, depth=12)), batch_size=4)


def _multimodal() -> Experiment:
    trunk = ViT(
        width=384,
        depth=6,
        num_heads=3,
        norm="rms_norm",
        norm_eps=1e-5,
        ffn="swiglu",
        positions="learned",
        grid=(16, 16),
    )
    decoder = JointDecoder(width=512, depth=6, num_heads=4)
    objective = Multimodal(decoder=decoder, tokenizer=GivenIds(size=VOCABULARY), context_length=77)
    return _at_224(trunk, objective, batch_size=8)


SIZES = {
    "small": Size("small", _small),
    "medium": Size("medium", _medium),
    "base": Size("base", _base),
    "multimodal": Size("multimodal", _multimodal),
}
"""``small``: the study of :data:`STUDY`; ``medium`` and ``base``: 256 patches; ``multimodal``: AIMv2's objective."""
