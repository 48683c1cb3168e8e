"""Write files with this version that later versions must be able to read.

    python tests/compat/write.py tests/compat/written_by_X_Y_Z

The script imports only public names of ``aimcore`` and of the plugins, so that it runs with later versions too. It
writes:

- ``recipes.tar.xz``: every experiment of ``examples/*.py`` at the scales smoke and paper, and further ones, so that
  every component occurs;
- ``images.zarr`` and ``tokenizer.json``: what the runs below read;
- ``out/study``: a finished study with a run for each kind of checkpoint;
- ``out/interrupted``: a study ended by Ctrl-C, and ``out/failed``: one that failed;
- ``public_names.json``: the names that each module of the API pages defines;
- ``made_with.json``: library versions and the processor, which determine the last bits of losses.

The runs in ``out/study`` have six steps and keep the checkpoint of the third. A test resumes from it and compares the
following losses with those in ``metrics.jsonl``. One final checkpoint is kept, and the weights of another.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import io
import json
import os
import platform
import re
import shutil
import signal
import sys
import tarfile
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import aimcore
from aimcore import (
    Augmentation,
    Branch,
    Data,
    Engine,
    Experiment,
    NativeResolution,
    OpenSource,
    Optimizer,
    Sample,
    Schedule,
    Study,
    Weights,
    recipe,
    run_study,
)
from aimcore_decoders import JointDecoder
from aimcore_evaluations import Captions
from aimcore_heads import LinearHead, MLPHead, TransformerHead
from aimcore_objectives import Classification, Contrastive, Multimodal, NextPatch
from aimcore_objectives.towers import TextTower
from aimcore_orderings import ColumnRaster, Reversed, Spiral
from aimcore_probes import KNNProbe, LinearProbe
from aimcore_sources import BundledEmoji, BundledFashionMNIST, CaptionedFolder, FashionMNIST, ZarrImages, write_zarr
from aimcore_targets import Pixels
from aimcore_tokenizers import BPE, Bytes
from aimcore_trackers import JSONLines
from aimcore_trackers.tensorboard import TensorBoard
from aimcore_trackers.wandb import Wandb
from aimcore_trunks import ViT

ROOT = Path(aimcore.__file__).parents[1]
EXAMPLES = ROOT / "examples"
NUM_IMAGES = 24
NUM_STEPS = 6
HALF = 3
"""The step of the checkpoint that is kept."""
WHOLE = ("aim-stage0", "aimv2-stage0")
"""Runs that keep their final weights."""


def main() -> None:
    """Write everything into the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.absolute()
    folder.mkdir(parents=True)
    os.chdir(folder)  # recipes hold paths relative to it
    (folder / "made_with.json").write_text(json.dumps(made_with(), indent=2) + "\n", encoding="utf-8")
    (folder / "public_names.json").write_text(json.dumps(public_names(), indent=1) + "\n", encoding="utf-8")
    write_images()
    write_recipes(folder / "recipes.tar.xz")
    run_study(Study(name="compat", experiments=trained()), Path("out/study"), scale="smoke")
    run_study(Study(name="failed", experiments=[failing()]), Path("out/failed"), scale=None)
    run_interrupted(Path("out/interrupted"))
    tidy(folder)


def made_with() -> dict[str, str]:
    """Versions, and the processor."""
    names = ("aimcore", "torch", "deepspeed", "numpy", "zarr")
    return {"python": platform.python_version(), **{name: version(name) for name in names}, "processor": processor()}


def processor() -> str:
    """A hash of the processor's model and features."""
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.exists() else platform.processor()
    kept = [line for line in text.splitlines() if line.startswith(("model", "stepping", "flags", "cpu family"))]
    return f"{platform.machine()}-{hashlib.sha256(chr(10).join(sorted(set(kept))).encode()).hexdigest()[:16]}"


def public_names() -> dict[str, list[str]]:
    """The public names of ``aimcore`` and of each module that has an API page."""
    pages = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "api").glob("*.md")))
    documented = {"aimcore", "aimcore.recipe", *re.findall(r"^::: ([\w.]+)$", pages, flags=re.MULTILINE)}
    modules = {name: sys.modules.get(name) or importlib.import_module(name) for name in documented if is_module(name)}
    return {name: names_of(module) for name, module in sorted(modules.items())}


def is_module(name: str) -> bool:
    """Whether a module is called ``name``, rather than something in a module."""
    parent, _, _ = name.rpartition(".")
    return not parent or (hasattr(importlib.import_module(parent), "__path__") and bool(importlib.util.find_spec(name)))


def names_of(module: ModuleType) -> list[str]:
    """What a module exports, or else what it defines itself."""
    own = (name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__)
    return sorted(getattr(module, "__all__", None) or (name for name in own if not name.startswith("_")))


class First(OpenSource):
    """``number`` samples of a source: every ``every``-th one."""

    def __init__(self, whole: OpenSource, number: int, every: int) -> None:
        self._whole, self._number, self._every = whole, number, every
        self.class_names = whole.class_names

    def __len__(self) -> int:
        return self._number

    def read(self, index: int) -> Sample:
        """The sample."""
        return self._whole.read(index * self._every)

    def label(self, index: int) -> int | None:
        """Its label."""
        return self._whole.label(index * self._every)


def write_images() -> None:
    """Write a few emoji without their margins, and a vocabulary trained on their names."""
    source = BundledEmoji(split="train", skin_tones=False, styles=("google",), trim=True).open()
    few = First(source, NUM_IMAGES, every=50)
    write_zarr("images.zarr", few, progress=False)
    names = [few.read(index).captions["name"][0] for index in range(NUM_IMAGES)]
    BPE.train(names, Path("tokenizer.json"), vocabulary_size=270)


def write_recipes(path: Path) -> None:
    """Write each experiment as a recipe file, every tenth as YAML."""
    with tempfile.TemporaryDirectory() as scratch, tarfile.open(path, "w:xz") as packed:
        for number, (name, experiment) in enumerate((*of_examples(), *others())):
            file = Path(scratch) / f"recipe{'.yaml' if number % 10 == 0 else '.json'}"
            recipe.save(file, experiment)
            content = file.read_bytes()
            entry = tarfile.TarInfo(f"{name}{file.suffix}")  # no times, no owners: equal recipes give equal bytes
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))


def of_examples() -> Iterator[tuple[str, Experiment]]:
    """Every experiment of the example studies."""
    sys.path.insert(0, str(EXAMPLES))
    for file in sorted(EXAMPLES.glob("*.py")):
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for scale in ("smoke", "paper") if hasattr(module, "study") else ():
            for experiment in module.study(scale).experiments:
                yield f"{file.stem}/{scale}/{experiment.name}", experiment


def others() -> Iterator[tuple[str, Experiment]]:
    """Experiments with components and settings that the examples do not use."""
    for experiment in (*trained(), failing()):
        yield f"compat/{experiment.name}", experiment
    captioned = CaptionedFolder(url="pictures")
    varied: dict[str, dict[str, Any]] = {
        "linear-head": {"objective": NextPatch(head=LinearHead(), target=Pixels(), ordering=ColumnRaster())},
        "transformer-head": {
            "objective": NextPatch(head=TransformerHead(width=16, depth=1, num_heads=2), ordering=Reversed(of=Spiral()))
        },
        "classification": {
            "objective": Classification(num_classes=10),
            "trackers": (JSONLines(url="lines.jsonl"), TensorBoard()),
        },
        "fashion-mnist": {"data": data(train=FashionMNIST(), validation=FashionMNIST(split="test"))},
        "bundled": {"data": data(train=BundledFashionMNIST(), validation=BundledFashionMNIST(split="test"))},
        "captioned-folder": {
            "data": data(train=captioned, validation=captioned),
            "trackers": (Wandb(project="aimcore"),),
        },
        "jitter": {"data": data(augmentation=Augmentation(color_jitter=(0.4, 0.4, 0.2, 0.1)))},
        "beginning": {
            "initial_weights": Weights(url="weights.safetensors", sha256="0" * 64, resize=True, fresh=("norm",)),
            "frozen": ("trunk.blocks.0", "*.bias"),
        },
        "schedule": {"schedule": Schedule(decay="half_cosine", warmup_steps=2, decay_steps=8, cooldown_steps=1)},
        "accumulation": {"engine": Engine(zero_stage=2, accumulation_steps=2, num_threads=1)},
    }
    for name, changes in varied.items():
        yield f"other/{name}", experiment_of(name, **changes)


def data(**changes: Any) -> Data:
    """The few emoji, for training and validation."""
    images = ZarrImages(url="images.zarr")
    fields: dict[str, Any] = {"train": images, "validation": images, "batch_size": 8, "image_size": 16}
    return Data(**fields | {"caption_weights": {"name": 1.0}} | changes)


def experiment_of(name: str, **changes: Any) -> Experiment:
    """A very small model, trained for six steps."""
    fields: dict[str, Any] = {
        "name": name,
        "data": data(),
        "trunk": ViT(width=8, depth=1, num_heads=2, patch_size=4),
        "objective": NextPatch(head=MLPHead(width=8, depth=1)),
        "num_steps": NUM_STEPS,
        "optimizer": Optimizer(peak_lr=1e-2),
        "schedule": Schedule(warmup_steps=2),
        "engine": Engine(num_threads=1),
        "checkpoint_every": HALF,
    }
    return Experiment(**fields | changes)


def trained() -> list[Experiment]:
    """A run for each kind of checkpoint.

    Runs at stage 3 come last: in version 0.1.0 they change how later runs in the same process are rounded.
    """
    probes = (KNNProbe(k=3), LinearProbe(learning_rates=(0.01,), epochs=1, batch_size=8))
    decoder = JointDecoder(width=8, depth=1, num_heads=2)
    aimv2 = ViT(
        width=8, depth=1, num_heads=2, patch_size=4, norm="rms_norm", norm_eps=1e-5, ffn="swiglu", ffn_width=16,
        positions="learned", grid=(4, 4),
    )  # fmt: skip
    tower = TextTower(width=8, depth=1, num_heads=2, ffn_width=16)
    text = {"tokenizer": Bytes(supervise_end=True), "context_length": 16}
    subwords = {"tokenizer": BPE.from_file("tokenizer.json"), "context_length": 16}
    decoupled = Optimizer(peak_lr=1e-2, weight_decay=1e-4, decay="decoupled")
    native = data(native=NativeResolution(patches_per_step=128, log2_area=(2, 4)))
    return [
        experiment_of("aim-stage0", probes=probes),
        experiment_of("aim-bf16", engine=Engine(zero_stage=1, precision="bf16", accumulation_steps=2, num_threads=1)),
        experiment_of("aim-native", data=native, engine=Engine(precision="fp32", num_threads=1)),
        experiment_of(
            "aim-branch",
            branch=Branch(experiment="aim-stage0", step=HALF),
            schedule=Schedule(warmup_steps=2, decay_steps=NUM_STEPS, cooldown_steps=2),
        ),
        experiment_of(
            "aimv2-stage0",
            trunk=aimv2,
            objective=Multimodal(decoder=decoder, **text),
            optimizer=decoupled,
            evaluations=(Captions(num_images=4),),
        ),
        experiment_of(
            "lit",
            trunk=aimv2,
            objective=Contrastive(text_tower=tower, embedding_width=8, num_pool_heads=2, **text),
            initial_weights=Weights(experiment="aimv2-stage0"),
            frozen=("trunk",),
        ),
        experiment_of("aim-stage3", engine=Engine(zero_stage=3, precision="fp32", num_threads=1)),
        experiment_of(
            "aimv2-stage3",
            trunk=aimv2,
            objective=Multimodal(decoder=decoder, **subwords),
            optimizer=decoupled,
            engine=Engine(zero_stage=3, precision="bf16", num_threads=1),
        ),
    ]


def failing() -> Experiment:
    """A run that diverges within a few steps."""
    return experiment_of(
        "diverging",
        optimizer=Optimizer(peak_lr=100.0, weight_decay=1000.0, gradient_clipping=None),
        engine=Engine(precision="fp32", num_threads=1),
        num_steps=200,
        checkpoint_every=None,
    )


def run_interrupted(out: Path) -> None:
    """Run a study and interrupt it, as Ctrl-C does, after a few steps."""
    long = experiment_of("long", num_steps=100_000, checkpoint_every=None)
    lines = out / "long" / "metrics.jsonl"

    def interrupt() -> None:
        while not (lines.exists() and lines.read_bytes().count(b"\n") >= HALF):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    run_study(Study(name="interrupted", experiments=[long]), out, scale=None)


def tidy(folder: Path) -> None:
    """Remove files that no test reads; make paths in tracebacks relative to the project."""
    study = folder / "out" / "study"
    last = f"step_{NUM_STEPS:08d}"
    for run in (path for path in study.iterdir() if path.is_dir() and path.name not in WHOLE):
        shutil.rmtree(run / "checkpoints" / last)
        (run / "checkpoints" / "latest").write_text(f"step_{HALF:08d}", encoding="utf-8")
    (study / "aimv2-stage0" / "checkpoints" / last / "mp_rank_00_model_states.pt").unlink()
    for run in (study / "lit", folder / "out" / "interrupted" / "long"):
        shutil.rmtree(run / "checkpoints")
    for needless in (*folder.rglob(".lock*"), *folder.rglob("zero_to_*.py")):  # DeepSpeed's own tools
        needless.unlink()
    for error in folder.rglob("error.txt"):
        text = error.read_text(encoding="utf-8")
        error.write_text(text.replace(f"{ROOT}/", ""), encoding="utf-8")


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # one run fails, as it should
    main()
