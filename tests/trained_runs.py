"""Folders of runs that were never trained: a recipe, and the weights that a seed gives."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from aimcore import Data, Experiment, Objective, ObjectiveModule, recipe
from aimcore.engine import build_module
from aimcore.engine.manifest import Manifest, describe_files
from aimcore_decoders import JointDecoder
from aimcore_objectives import Captioning
from aimcore_sources import BundledEmoji
from aimcore_tokenizers import Bytes
from aimcore_trunks import ViT


def captioning_experiment(objective: Objective | None = None, **changes) -> Experiment:
    """A tiny captioner of emoji."""
    source = BundledEmoji(split="test", skin_tones=False, styles=("google",))
    decoder = JointDecoder(width=16, depth=1, num_heads=2)
    given = Captioning(decoder=decoder, tokenizer=Bytes(supervise_end=True), context_length=8)
    fields = {
        "name": "tiny",
        "data": Data(train=source, validation=source, batch_size=4, image_size=32, caption_weights={"name": 1.0}),
        "trunk": ViT(width=16, depth=1, num_heads=2, patch_size=16),
        "objective": objective or given,
        "num_steps": 2,
    }
    return Experiment(**fields | changes)


def write_run(
    folder: Path, experiment: Experiment, *, step: int, module: ObjectiveModule | None = None
) -> ObjectiveModule:
    """What training would have left in ``folder``, but for the engine's own files."""
    checkpoint = folder / "checkpoints" / f"step_{step:08d}"
    checkpoint.mkdir(parents=True)
    recipe.save(folder / "recipe.json", experiment)
    module = module or build_module(experiment)
    save_file(module.state_dict(), checkpoint / "model.safetensors")
    Manifest(step, 0.0, {}, describe_files(checkpoint)).write(checkpoint)
    return module
