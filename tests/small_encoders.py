"""Small encoders of runs that were never trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trained_runs import write_run

from aimcore import Data, Experiment, Trunk
from aimcore_heads import LinearHead
from aimcore_objectives import Contrastive, NextPatch
from aimcore_objectives.towers import TextTower
from aimcore_sources import BundledEmoji
from aimcore_tokenizers import Bytes
from aimcore_trunks import ViT

FORM = {"norm": "rms_norm", "norm_eps": 1e-5, "ffn": "swiglu", "ffn_width": 40}
TRUNK = ViT(width=16, depth=2, num_heads=2, patch_size=8, positions="learned", grid=(4, 4), **FORM)
SMALL = {"width": 16, "depth": 1, "num_heads": 2, "patch_size": 8}
SINCOS = ViT(**SMALL, **FORM)
TOWERS = Contrastive(
    text_tower=TextTower(width=12, depth=2, num_heads=2, ffn_width=24), tokenizer=Bytes(begin=True), context_length=9,
    embedding_width=10, num_pool_heads=2,
)  # fmt: skip
TEXTS = ["a cat", "Two  words and more", "", "é!"]


def run_of(folder: Path, trunk: Trunk = TRUNK, objective: Any = None) -> Path:
    """The folder of a run that was never trained."""
    source = BundledEmoji(split="test", skin_tones=False, styles=("google",))
    data = Data(
        train=source, validation=source, batch_size=4, image_size=32, eval_crop=0.5, caption_weights={"name": 1.0}
    )
    objective = objective or NextPatch(head=LinearHead())
    write_run(folder / "run", Experiment(name="run", data=data, trunk=trunk, objective=objective, num_steps=2), step=2)
    return folder / "run"
