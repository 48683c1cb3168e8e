"""Data that is damaged and read again: pictures, shards, zarr groups."""

from __future__ import annotations

import io
import json
import random
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz_mutations import DAMAGE, bytes_mutated, values_mutated, with_right_checksums
from fuzz_subject import TEXTS, Fault, Subject, experiment
from PIL import Image

from aimcore import OpenSource, Sample, UnreadableSample
from aimcore.data.rendering import renderer_of
from aimcore.io.image_files import decode
from aimcore_sources import WebDataset, ZarrImages, write_zarr


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
        images = renderer.together([renderer.for_evaluation(Sample(image=picture, identifier=name))]).images
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
