"""Files of runs that are damaged and read again: weights, tokenizers, recipes, manifests, studies."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Callable
from typing import Any

import attrs
import torch
import yaml
from fuzz_mutations import Mutation, bytes_mutated, python_mutated, values_mutated
from fuzz_subject import TEXTS, Fault, Subject, experiment
from safetensors.torch import save_file

from aimcore import ObjectiveModule, Study, Weights, recipe
from aimcore.engine import build_module
from aimcore.engine.checkpoint_checks import verify_checkpoint
from aimcore.engine.cost import costs_of
from aimcore.engine.initial_weights import load_weights
from aimcore.engine.manifest import Manifest, describe_files, read_manifest
from aimcore.io.run_folder import MANIFEST_FILE
from aimcore.running.preflight import check_study
from aimcore.running.study_files import load_study
from aimcore_tokenizers import BPE, ClipBPE, SentencePiece


class WeightFiles(Subject):
    """Safetensors files that a run begins with."""

    name = "safetensors"

    def prepare(self) -> None:
        """The weights of the tiny experiment."""
        self.module: ObjectiveModule = build_module(experiment())
        path = self.folder / "sound.safetensors"
        save_file(self.module.state_dict(), path)
        self.content = path.read_bytes()
        self._load(self.content)

    def try_case(self, draw: random.Random) -> None:
        """The file, damaged; half of the time in its header."""
        length = int.from_bytes(self.content[:8], "little")
        if draw.random() < 0.3:
            header, _ = values_mutated(json.loads(self.content[8 : 8 + length]), draw)
            written = json.dumps(header).encode("utf-8", "replace")
            self._load(len(written).to_bytes(8, "little") + written + self.content[8 + length :])
        elif draw.random() < 0.5:
            head = bytes_mutated(self.content[: 8 + length], draw).content
            self._load(head + self.content[8 + length :])
        else:
            self._load(bytes_mutated(self.content, draw).content)

    def _load(self, content: bytes) -> None:
        path = self.folder / "case.safetensors"
        path.write_bytes(content)
        load_weights(experiment(initial_weights=Weights(url=str(path))), self.module)
        strange = [name for name, value in self.module.named_parameters() if not value.isfinite().all()]
        if strange:
            raise Fault(f"loaded values that are not finite: {strange}")


class TokenizerFiles(Subject):
    """The files of the text tokenizers."""

    name = "tokenizers"

    def prepare(self) -> None:
        """A trained BPE, a trained SentencePiece model, and merges as CLIP's."""
        BPE.train(TEXTS, self.folder / "tokenizer.json", vocabulary_size=280)
        seeds: dict[str, tuple[bytes, Callable[[str], Any]]] = {
            "bpe": ((self.folder / "tokenizer.json").read_bytes(), BPE.from_file),
            "sentencepiece": (_sentencepiece(), SentencePiece.from_file),
            "clip": (gzip.compress(b"# version\na b\nb c\n"), ClipBPE.from_file),
        }
        self.seeds = seeds
        for name in ("bpe", "sentencepiece"):
            self._read(name, seeds[name][0])

    def try_case(self, draw: random.Random) -> None:
        """One of the files, damaged as bytes or, where it is JSON, as values."""
        name = draw.choice(list(self.seeds))
        content = self.seeds[name][0]
        if name == "bpe" and draw.random() < 0.6:
            document, _ = values_mutated(json.loads(content), draw)
            self._read(name, json.dumps(document).encode())
        else:
            self._read(name, bytes_mutated(content, draw).content)

    def _read(self, name: str, content: bytes) -> None:
        path = self.folder / f"case-{name}"
        path.write_bytes(content)
        tokenizer = self.seeds[name][1](str(path))
        text = tokenizer.encode(list(TEXTS), 12)
        size = tokenizer.vocabulary_size
        if not ((text.ids_BT >= 0) & (text.ids_BT < size)).all():
            raise Fault(f"ids beyond the vocabulary of {size}")
        tokenizer.decode(text.ids_BT[0].tolist())


def _sentencepiece() -> bytes:
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=written, vocab_size=40, hard_vocab_limit=False, minloglevel=2,
        num_threads=1, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
    )  # fmt: skip
    return written.getvalue()


class Recipes(Subject):
    """Recipes in JSON and YAML, read, checked, and their cost computed as in a dry run."""

    name = "recipes"

    def prepare(self) -> None:
        """The recipe of the tiny experiment, in both languages."""
        self.document = recipe.to_recipe(experiment())
        self.texts = {".json": json.dumps(self.document, indent=1), ".yaml": yaml.safe_dump(self.document)}
        for suffix, text in self.texts.items():
            self._read(suffix, text.encode())

    def try_case(self, draw: random.Random) -> None:
        """One of the texts, damaged as bytes or as values."""
        suffix = draw.choice(list(self.texts))
        if draw.random() < 0.3:
            self._read(suffix, bytes_mutated(self.texts[suffix].encode(), draw).content)
            return
        document, _ = values_mutated(self.document, draw)
        text = json.dumps(document) if suffix == ".json" else yaml.dump(document)
        self._read(suffix, text.encode("utf-8", "surrogatepass"))

    def _read(self, suffix: str, content: bytes) -> None:
        path = self.folder / f"case{suffix}"
        path.write_bytes(content)
        study = load_study(path, "smoke")
        check_study(study, with_data=False)
        costs_of(study.experiments, 1)


class Manifests(Subject):
    """Manifests of checkpoints: whatever was changed in one must be noticed."""

    name = "manifests"

    def prepare(self) -> None:
        """A run's folder with a checkpoint."""
        self.checkpoint = self.folder / "run" / "checkpoints" / "step_00000003"
        self.checkpoint.mkdir(parents=True)
        self.asked = {"zero_stage": 0, "precision": "float32", "seed": 0}
        counts = {"global_steps": 3, "skipped_steps": 0, "dp_world_size": 1, "mp_world_size": 1}
        torch.save({"module": {}, **counts}, self.checkpoint / "mp_rank_00_model_states.pt")
        Manifest(3, 1.5, self.asked, describe_files(self.checkpoint)).write(self.checkpoint)
        self.content = (self.checkpoint / MANIFEST_FILE).read_bytes()
        self.expected = attrs.asdict(self._read(self.content))

    def try_case(self, draw: random.Random) -> None:
        """The manifest, damaged as bytes or as values."""
        if draw.random() < 0.5:
            document, how = values_mutated(json.loads(self.content), draw)
            mutation = Mutation(json.dumps(document).encode(), how)
        else:
            mutation = bytes_mutated(self.content, draw)
        if attrs.asdict(self._read(mutation.content)) != self.expected:
            raise Fault(f"another manifest is believed: {mutation.how}")

    def _read(self, content: bytes) -> Manifest:
        (self.checkpoint / MANIFEST_FILE).write_bytes(content)
        verify_checkpoint(self.checkpoint, self.asked)
        return read_manifest(self.checkpoint)


STUDY = '''\
"""A study."""

import attrs

from aimcore import Data, Experiment, Study
from aimcore_heads import MLPHead
from aimcore_objectives import NextPatch
from aimcore_orderings import Raster, Spiral
from aimcore_sources import BundledFashionMNIST
from aimcore_targets import NormalizedPixels
from aimcore_trunks import ViT

SIZES = {"smoke": 8, "small": 16, "paper": 32}


def experiment(ordering, scale):
    """One of them."""
    data = Data(train=BundledFashionMNIST(split="train"), validation=BundledFashionMNIST(split="test"), batch_size=4)
    data = attrs.evolve(data, image_size=28)
    head = MLPHead(width=8, depth=1)
    objective = NextPatch(ordering=ordering, target=NormalizedPixels(), head=head, prefix=None)
    trunk = ViT(width=SIZES[scale], depth=1, num_heads=2, patch_size=14)
    return Experiment(name=ordering.name, data=data, trunk=trunk, objective=objective, num_steps=4)


def study(scale):
    """Both orderings."""
    return Study(name="two", experiments=[experiment(ordering, scale) for ordering in (Raster(), Spiral())])
'''


class StudyFiles(Subject):
    """Study files in which words of Python are gone, swapped or others."""

    name = "studies"

    def prepare(self) -> None:
        """A study of two experiments."""
        self._read(STUDY)

    def try_case(self, draw: random.Random) -> None:
        """The study file, damaged."""
        self._read(python_mutated(STUDY, draw)[0])

    def _read(self, source: str) -> None:
        path = self.folder / "case.py"
        path.write_text(source, encoding="utf-8")
        study: Study = load_study(path, "smoke")
        check_study(study, with_data=False)
        costs_of(study.experiments, 1)
