"""What is damaged and read again: pictures, shards, zarr groups, weights, tokenizers, recipes, manifests, studies."""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import attrs
import numpy as np
import torch
import yaml
from fuzz_mutations import DAMAGE, Mutation, bytes_mutated, python_mutated, values_mutated, with_right_checksums
from PIL import Image
from safetensors.torch import save_file

from aimcore import Data, Experiment, ObjectiveModule, OpenSource, Sample, Study, UnreadableSample, Weights, recipe
from aimcore.cost import costs_of
from aimcore.data.decoding import decode
from aimcore.data.rendering import renderer_of
from aimcore.engine import build_module
from aimcore.engine.manifest import MANIFEST, Manifest, describe_files, read_manifest
from aimcore.engine.soundness import sound
from aimcore.engine.weights import load_weights
from aimcore.running.checks import check_study
from aimcore.study import load_study
from aimcore_heads import MLPHead
from aimcore_objectives import NextPatch
from aimcore_orderings import Raster
from aimcore_sources import BundledFashionMNIST, WebDataset, ZarrImages, write_zarr
from aimcore_targets import NormalizedPixels
from aimcore_tokenizers import BPE, ClipBPE, SentencePiece
from aimcore_trunks import ViT

TEXTS = ("a red square", "two dogs, running", "ein Haus am See", "the moon over a quiet harbour")


class Fault(Exception):
    """Something was read as it is not, and nobody was told."""


class Subject(ABC):
    """One kind of input: sound files that are made once, and a damaged one for each case."""

    name: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        """Make the sound files; ``folder`` is empty, and the subject's own."""
        self.folder = folder
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Make what is damaged later, and see that it is sound."""

    @abstractmethod
    def try_case(self, draw: random.Random) -> None:
        """Damage one file and read it.

        Raises:
            AimcoreError: it was refused.
            Fault: it was read as something that it is not.
        """


def experiment(**changes: Any) -> Experiment:
    """A tiny experiment on bundled images."""
    data = Data(
        train=BundledFashionMNIST(split="train"), validation=BundledFashionMNIST(split="test"), batch_size=4,
        image_size=28,
    )  # fmt: skip
    objective = NextPatch(ordering=Raster(), target=NormalizedPixels(), head=MLPHead(width=8, depth=1), prefix=None)
    trunk = ViT(width=8, depth=1, num_heads=2, patch_size=14)
    return Experiment(name="tiny", data=data, trunk=trunk, objective=objective, num_steps=4, **changes)


class Pictures(Subject):
    """Encoded images of every format that is opened."""

    name = "images"

    def prepare(self) -> None:
        """Many formats, modes and options, of small pictures."""
        self.seeds = dict(_pictures())
        self.data = experiment().data
        for name, content in self.seeds.items():
            self._read(content, name)

    def try_case(self, draw: random.Random) -> None:
        """One of the pictures, damaged."""
        name = draw.choice(list(self.seeds))
        content = bytes_mutated(self.seeds[name], draw).content
        if name.startswith("png") and draw.random() < 0.5:
            content = with_right_checksums(content)
        (self.folder / "case").write_bytes(content)
        self._read(content, name)

    def _read(self, content: bytes, name: str) -> None:
        picture = decode(content, name)
        if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[0] != 3 or not picture.numel():
            raise Fault(f"decoded as {picture.dtype} {list(picture.shape)}")
        renderer = renderer_of(self.data, 14)
        images = renderer.together([renderer.for_evaluation(picture)]).images
        if not images.patches_BNF.isfinite().all():
            raise Fault("rendered with values that are not finite")


def _pictures() -> Iterator[tuple[str, bytes]]:
    values = np.random.default_rng(0).integers(0, 256, (11, 17, 4), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(values).resize((48, 36), Image.Resampling.BICUBIC))
    rgba = Image.fromarray(smooth)
    rgb, grey, one_bit = rgba.convert("RGB"), rgba.convert("L"), rgba.convert("1")
    palette, cmyk, both = rgb.quantize(16), rgb.convert("CMYK"), rgba.convert("LA")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    real = Image.fromarray(np.asarray(grey).astype(np.float32) / 255)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x0131] = 6, "a picture", "a program"
    many = {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)]}
    kinds: Sequence[tuple[str, Image.Image, Mapping[str, Any]]] = (
        ("jpeg", rgb, {"exif": exif}), ("jpeg", rgb, {"progressive": True}), ("jpeg", grey, {}), ("jpeg", cmyk, {}),
        ("png", rgb, {"exif": exif}), ("png", rgba, {}), ("png", palette, {"transparency": 3}), ("png", both, {}),
        ("png", one_bit, {}), ("png", deep, {}), ("tiff", rgb, {"exif": exif}),
        ("tiff", rgb, {"compression": "tiff_lzw"}),
        ("tiff", rgb, {"compression": "jpeg"}), ("tiff", rgba, {"compression": "tiff_adobe_deflate"}),
        ("tiff", grey, {"compression": "packbits"}), ("tiff", one_bit, {"compression": "group4"}), ("tiff", deep, {}),
        ("tiff", real, {}), ("gif", palette, {}), ("gif", rgb, many),
        ("webp", rgb, {"exif": exif}),
        ("webp", rgba, {"lossless": True}), ("webp", rgb, many), ("avif", rgb, {"exif": exif}), ("avif", rgba, {}),
        ("bmp", rgb, {}), ("ppm", rgb, {}),
    )  # fmt: skip
    for number, (kind, picture, options) in enumerate(kinds):
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        yield f"{kind}-{number}", buffer.getvalue()


class Shards(Subject):
    """Tar shards in the three formats, cut, flipped, or with zeros where a block was.

    Tar has checksums of headers alone. So a name that does not fit into a header, and lies behind it, may be damaged
    without a trace: its samples are others then, but they are counted.
    """

    name = "shards"

    def prepare(self) -> None:
        """Six samples in each format, one of them with a name longer than a plain header takes."""
        formats = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
        self.seeds = {name: _shard(number) for name, number in formats.items()}
        self.sound = {name: self._read(content)[0] for name, content in self.seeds.items()}
        if any(len(samples) != 6 for samples in self.sound.values()):
            raise Fault("the sound shards do not hold six samples")

    def try_case(self, draw: random.Random) -> None:
        """One of the shards, damaged."""
        name = draw.choice(list(self.seeds))
        mutation = bytes_mutated(self.seeds[name], draw, DAMAGE)
        samples, reported = self._read(mutation.content)
        lost = [sample for sample in self.sound[name] if sample not in samples]
        if lost and not reported and len(lost) > self._renamed(samples, lost):
            raise Fault(f"{len(samples)} samples of {len(self.sound[name])} in {name}: {mutation.how}")

    def _renamed(self, samples: Sequence[str], lost: Sequence[str]) -> int:
        """How many of the ``lost`` samples may be there under another name: the one with the long name."""
        return min(len(samples) - 5, sum(len(sample) > 100 for sample in lost))

    def _read(self, content: bytes) -> tuple[list[str], int]:
        """The names of all samples, and how many were reported as unreadable or left out."""
        path = self.folder / "shard.tar"
        for leftover in self.folder.iterdir():
            leftover.unlink()
        path.write_bytes(content)
        return _names(WebDataset(url=str(path), captions={"alt": "txt"}).open())


def _shard(number: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=number) as tar:
        for index in range(6):
            key = f"s{index}" if index != 3 else f"{'folder/' * 15}s{index}"
            for suffix, content in (("png", _png(index)), ("txt", f"caption {index}".encode())):
                header = tarfile.TarInfo(f"{key}.{suffix}")
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))
    return buffer.getvalue()


def _png(red: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), (red, 0, 0)).save(buffer, "png")
    return buffer.getvalue()


def _names(source: OpenSource) -> tuple[list[str], int]:
    names, num_unreadable = [], 0
    for index in range(len(source)):
        try:
            names.append(source.read(index).identifier)
        except UnreadableSample as failure:
            names.append(failure.identifier)
            num_unreadable += 1
    return names, num_unreadable + sum(source.left_out.values())


class _Written(OpenSource):
    """Samples in memory, none of them black."""

    class_names = ("zero", "one", "two")

    def __init__(self) -> None:
        values = np.random.default_rng(0).integers(1, 256, (6, 3, 9, 12), dtype=np.uint8)
        self.images = torch.from_numpy(values)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> Sample:
        """Image, label and caption."""
        return Sample(
            image=self.images[index], identifier=f"s{index}", label=1 + index % 2, captions={"alt": (TEXTS[index % 4],)}
        )


class ZarrGroups(Subject):
    """Groups as we write them: damaged files, lost files, files in each other's places."""

    name = "zarr"

    def prepare(self) -> None:
        """One sound group."""
        self.sound = self.folder / "sound"
        write_zarr(str(self.sound), _Written(), progress=False)
        self.files = sorted(path.relative_to(self.sound) for path in self.sound.rglob("*") if path.is_file())
        self.expected = _contents(ZarrImages(url=str(self.sound)).open())

    def try_case(self, draw: random.Random) -> None:
        """One file of a copy, damaged."""
        case = self.folder / "case"
        shutil.rmtree(case, ignore_errors=True)
        shutil.copytree(self.sound, case)
        how = self._damage(case, draw)
        found = _contents(ZarrImages(url=str(case)).open())
        if found != self.expected:
            raise Fault(f"read as something else: {how}")

    def _damage(self, case: Path, draw: random.Random) -> str:
        name = draw.choice(self.files)
        how = draw.choice(("lost", "another's", "damaged", "damaged", "damaged"))
        if how == "lost":
            (case / name).unlink()
        elif how == "another's":
            shutil.copy(self.sound / draw.choice(self.files), case / name)
        elif name.suffix == ".json" and draw.random() < 0.5:
            document, what = values_mutated(json.loads((case / name).read_text()), draw)
            (case / name).write_text(json.dumps(document))
            return f"{name}: {what}"
        else:
            mutation = bytes_mutated((case / name).read_bytes(), draw)
            (case / name).write_bytes(mutation.content)
            return f"{name}: {mutation.how}"
        return f"{name}: {how}"


def _contents(source: OpenSource) -> list[Any]:
    """All that a source holds; a sample that is reported as unreadable stands for itself, once and for all."""
    found: list[Any] = [tuple(source.class_names)]
    for index in range(len(source)):
        sample = source.read(index)
        found.append((sample.image.numpy().tobytes(), sample.label, dict(sample.captions), source.label(index)))
    return found


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
        self.content = (self.checkpoint / MANIFEST).read_bytes()
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
        (self.checkpoint / MANIFEST).write_bytes(content)
        sound(self.checkpoint, self.asked)
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


_ALL: tuple[type[Subject], ...] = (
    Pictures, Shards, ZarrGroups, WeightFiles, TokenizerFiles, Recipes, Manifests, StudyFiles,
)  # fmt: skip
SUBJECTS: Mapping[str, type[Subject]] = {subject.name: subject for subject in _ALL}
