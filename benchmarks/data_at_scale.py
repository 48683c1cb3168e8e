"""A pool of captioned images with planted flaws through all of ``aimcore data``: is what was planted found?

    python benchmarks/data_at_scale.py FOLDER --num 100000             # everything; needs Fashion-MNIST
    python benchmarks/data_at_scale.py FOLDER --only filter            # one stage; an interrupted one continues

FOLDER receives the images, the models, what the commands write, and ``times.jsonl``. The stages are processes of their
own: the pool is drawn, two towers and a captioner are trained for some minutes, the pool is converted, inspected,
filtered and captioned, and two towers are trained for some steps on what is left.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
from data_at_scale_images import COPIES, PLAIN, TEST_IMAGES, Planted, write_pool, write_training

from aimcore import Data, Experiment, Objective, Schedule, Source, run_experiment
from aimcore.recipe.reading import structured
from aimcore.registry.plugins import installed
from aimcore_decoders import JointDecoder
from aimcore_objectives import Contrastive, Multimodal
from aimcore_objectives.towers import TextTower
from aimcore_optimizers import AdamW
from aimcore_sources import CaptionedFolder
from aimcore_tokenizers import Bytes
from aimcore_trunks import ViT

COMMAND = "import sys; from aimcore.run import command; sys.exit(command(sys.argv[1:]))"
STAGES = ("draw", "models", "convert", "inspect", "filter", "caption", "train", "judge")
HASH_DISTANCE, SIMILARITY, KEEP = 2, 0.9995, 0.5
NUM_SEEN = 8000
"""Images that the models are trained on, which are not in the pool."""
CONTEXT = 28
"""Bytes of a caption."""
TOWERS = Contrastive(
    text_tower=TextTower(width=32, depth=1, num_heads=2), tokenizer=Bytes(supervise_end=True), context_length=CONTEXT,
    embedding_width=32, num_pool_heads=2,
)  # fmt: skip
CAPTIONER = Multimodal(
    decoder=JointDecoder(width=32, depth=2, num_heads=2), tokenizer=Bytes(supervise_end=True), context_length=CONTEXT
)


def experiment(
    name: str, objective: Objective, train: Source, validation: Source, num_steps: int, **weights: float
) -> Experiment:
    """Return a small training at 32 px."""
    data = Data(
        train=train, validation=validation, batch_size=32, image_size=32, eval_crop=1.0,
        caption_weights=weights or {"alt": 1.0},
    )  # fmt: skip
    trunk = ViT(width=32, depth=2, num_heads=2, patch_size=8, positions="learned", grid=(4, 4))
    return Experiment(
        name=name, data=data, trunk=trunk, objective=objective, num_steps=num_steps, optimizer=AdamW(peak_lr=2e-3),
        schedule=Schedule(warmup_steps=num_steps // 20),
    )  # fmt: skip


class Stages:
    """The stages, in the folder."""

    def __init__(self, folder: Path, number: int, workers: int, num_steps: int) -> None:
        self.folder, self.number, self.workers, self.num_steps = folder, number, workers, num_steps

    @property
    def pool(self) -> str:
        """The converted pool, as JSON."""
        return json.dumps({"name": "webdataset", "url": str(self.folder / "pool-*.tar"), "captions": self.captions})

    @property
    def kept(self) -> str:
        """The filtered pool, as JSON."""
        return json.dumps({"name": "webdataset", "url": str(self.folder / "train-*.tar"), "captions": self.captions})

    captions: Mapping[str, str] = {"alt": "json#alt"}

    def draw(self) -> None:
        """Write the pool, the test images, and what the models are trained on."""
        planted = write_pool(self.folder, self.number)
        write_training(self.folder / "seen", range(NUM_SEEN))
        write_training(self.folder / "unseen", range(NUM_SEEN, NUM_SEEN + 256))
        (self.folder / "planted.json").write_text(json.dumps([attrs.astuple(one) for one in planted]))

    def models(self) -> None:
        """Train two towers and a captioner."""
        for name, objective in {"towers": TOWERS, "captioner": CAPTIONER}.items():
            self._train(experiment(name, objective, self._folder("seen"), self._folder("unseen"), self.num_steps))

    def convert(self) -> None:
        """Write the pool as shards."""
        self._command("convert", "raw", "pool-*.tar", "--max-unreadable", str(self.number))

    def inspect(self) -> None:
        """Read the pool, and store what is broken and what is there twice."""
        text = self._command("inspect", "raw", "--json", "--near", str(HASH_DISTANCE), expected=(0, 1))
        (self.folder / "inspected.json").write_text(text)

    def filter(self) -> None:
        """Remove test images, duplicates and the captions that fit worst."""
        self._command(
            "filter", self.pool, "train-*.tar", "--against", "test", "--deduplicate", "--hash-distance",
            str(HASH_DISTANCE), "--embeddings-by", "models/towers", "--similarity", str(SIMILARITY), "--scores-by",
            "models/towers", "--keep", str(KEEP), "--caption", "alt",
        )  # fmt: skip

    def caption(self) -> None:
        """Caption what is left."""
        self._command("caption", self.kept, "captions.jsonl", "--run", "models/captioner", has_workers=False)

    def train(self) -> None:
        """Train on what is left, with both kinds of captions."""
        given = {"name": "with_captions", "source": json.loads(self.kept), "kind": "synthetic"}
        source: Source = structured({**given, "captions": str(self.folder / "captions.jsonl")}, Source, installed(), {})
        trained = experiment("trained", TOWERS, source, self._folder("unseen"), 100, alt=0.5, synthetic=0.5)
        self._train(trained)

    def judge(self) -> None:
        """Compare what was found with what was planted."""
        planted = [Planted(*one) for one in json.loads((self.folder / "planted.json").read_text())]
        for line in judged(self.folder, planted):
            print(line)

    def _train(self, given: Experiment) -> None:
        """Train, from where an earlier call stopped."""
        summary = run_experiment(given, self.folder / "models", resume=True)
        print(given.name, summary.status, dict(summary.losses), flush=True)
        if summary.status != "finished":
            raise SystemExit(130 if summary.status == "interrupted" else 1)

    def _folder(self, name: str) -> CaptionedFolder:
        return CaptionedFolder(url=str(self.folder / name))

    def _command(self, *words: str, expected: tuple[int, ...] = (0,), has_workers: bool = True) -> str:
        """Run ``aimcore data`` in the folder, and return what it prints."""
        own = ["--workers", str(self.workers)] if has_workers else []
        line = [sys.executable, "-c", COMMAND, "data", *words, *own]
        paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path if path)
        done = subprocess.run(
            line,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": paths},
            check=False,
        )
        if done.returncode not in expected:
            raise SystemExit(done.returncode)
        return done.stdout


def judged(folder: Path, planted: list[Planted]) -> Iterator[str]:
    """Yield the numbers of what was planted and of what was found."""
    readable = [index for index, one in enumerate(planted) if one.kind != "broken file"]
    inspected = json.loads((folder / "inspected.json").read_text())
    broken = {index for index, one in enumerate(planted) if one.kind == "broken file"}
    named = {one["index"] for one in inspected["broken"]}
    yield f"broken: {len(broken):,} planted, {len(named & broken):,} of them and {len(named - broken):,} others named"
    pairs = {(one.of, index) for index, one in enumerate(planted) if one.kind == "equal pixels"}
    groups = [{one["index"] for one in group["samples"]} for group in inspected["duplicates"]["exact"]]
    together = {index: number for number, group in enumerate(groups) for index in group}
    found = sum(left in together and together[left] == together.get(right) for left, right in pairs)
    yield f"equal pixels: {len(pairs):,} pairs planted, {found:,} found by inspect, in {len(groups):,} groups"
    record = json.loads((folder / "train.tar.filter.json").read_text())
    yield f"converted: {record['num_samples']:,} of {len(planted):,}; expected {len(readable):,}"
    removed = {readable[one["index"]]: one for one in record["removed"]}
    yield from _by_kind(planted, removed)
    yield from _captions(folder, planted, [index for index in readable if index not in removed])


def _by_kind(planted: list[Planted], removed: Mapping[int, Mapping[str, Any]]) -> Iterator[str]:
    def fate(index: int) -> str:
        one = removed.get(index)
        return "kept" if one is None else f"{one['reason']} by {one['rule']}" if "rule" in one else one["reason"]

    kinds = {one.kind for one in planted}
    for kind in sorted(kinds - {"broken file"}):
        where = [index for index, one in enumerate(planted) if one.kind == kind]
        counts = Counter(fate(index) for index in where)
        yield f"{kind}: {len(where):,}; " + ", ".join(f"{number:,} {name}" for name, number in counts.most_common())
        if kind in COPIES:
            both = sum(index not in removed and planted[index].of not in removed for index in where)
            yield f"{kind}: of {both:,} pairs both are kept"
        if kind in TEST_IMAGES:
            right = sum(_is_like(removed.get(index), planted[index].of) for index in where)
            yield f"{kind}: {right:,} are removed with the test image that was planted"
    plain = [index for index, one in enumerate(planted) if one.kind == PLAIN and index in removed]
    copied = {one.of for one in planted if one.kind in COPIES}
    false = [index for index in plain if removed[index]["reason"] == "duplicate" and index not in copied]
    yield f"nothing planted, never copied, and removed as duplicates: {len(false):,}"


def _is_like(one: Mapping[str, Any] | None, of: int) -> bool:
    return one is not None and one["reason"] == "evaluation" and one["like_index"] == of


def _captions(folder: Path, planted: list[Planted], kept: list[int]) -> Iterator[str]:
    lines = (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    synthetic = [json.loads(line)["captions"][0] for line in lines]
    yield f"captions: {len(synthetic):,} for {len(kept):,} kept images"
    right = sum(text == planted[index].caption for text, index in zip(synthetic, kept, strict=True))
    colours = sum(
        text.split()[:1] == planted[index].caption.split()[:1] for text, index in zip(synthetic, kept, strict=True)
    )
    yield f"captions: {right / len(kept):.1%} are right in every word, {colours / len(kept):.1%} in the colour"


def main() -> int:
    """Run the stages; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--num", type=int, default=2000, help="images of the pool")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=800, help="of the training of each model")
    parser.add_argument("--only", choices=STAGES, action="append")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    stages = Stages(options.folder.absolute(), options.num, options.workers, options.steps)
    for name in options.only or STAGES:
        work: Callable[[], None] = getattr(stages, name)
        start, is_complete = time.monotonic(), False
        try:
            work()
            is_complete = True
        finally:
            peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
            line = {"stage": name, "seconds": round(time.monotonic() - start, 1), "complete": is_complete}
            line["largest process, MB"] = round(peak / 1024)
            print(json.dumps(line), flush=True)
            with (options.folder / "times.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
