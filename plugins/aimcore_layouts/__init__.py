"""Built-in layouts of files of weights: the released encoders, in all forms in which they exist."""

from collections.abc import Sequence

from aimcore import FileLayout, hookimpl
from aimcore_layouts.authors import AIMAuthors, AIMv2Authors
from aimcore_layouts.libraries import AIMv2Flax, AIMv2MLX, AIMv2Timm, AIMv2Transformers
from aimcore_layouts.lit import LiTAuthors, LiTFlax, LiTMLX, LiTTransformers
from aimcore_layouts.own import OwnViT
from aimcore_layouts.training import AIMTraining, AIMv2Training
from aimcore_layouts.transformers_towers import CLIPTransformers, SigLIPTransformers
from aimcore_layouts.transformers_vision import TransformersVision


@hookimpl
def layouts() -> Sequence[type[FileLayout]]:
    """Layouts of released files, of the authors' training code, of other libraries, and of this project's trunks."""
    return [
        AIMAuthors, AIMTraining, AIMv2Authors, AIMv2Flax, AIMv2MLX, AIMv2Timm, AIMv2Training, AIMv2Transformers,
        CLIPTransformers, LiTAuthors, LiTFlax, LiTMLX, LiTTransformers, OwnViT, SigLIPTransformers,
        TransformersVision,
    ]  # fmt: skip


__all__ = [
    "AIMAuthors",
    "AIMTraining",
    "AIMv2Authors",
    "AIMv2Flax",
    "AIMv2MLX",
    "AIMv2Timm",
    "AIMv2Training",
    "AIMv2Transformers",
    "CLIPTransformers",
    "LiTAuthors",
    "LiTFlax",
    "LiTMLX",
    "LiTTransformers",
    "OwnViT",
    "SigLIPTransformers",
    "TransformersVision",
]
