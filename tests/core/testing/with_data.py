"""Components without examples, because they need data or a library, or are large: each with what makes one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from benchmark_files import write_cifar10
from image_tokenizers import write_dvae, write_kmeans
from PIL import Image
from safetensors.torch import save_file
from shards import captioned_shard, picture
from small_towers import untrained
from vocabularies import write_clip_merges, write_sentencepiece

from aimcore import Component
from aimcore_sources import (
    Benchmark,
    CaptionedFolder,
    FashionMNIST,
    ImageFolder,
    Parquet,
    WebDataset,
    WithCaptions,
    ZarrImages,
    write_zarr,
)
from aimcore_sources.fashion_mnist import CLASS_NAMES
from aimcore_targets import Codes
from aimcore_tokenizers import BPE, ClipBPE, SentencePiece
from aimcore_trunks import LoRA, Pretrained, TorchvisionTrunk, ViT

CORPUS = ("a red shoe", "a red bag", "two red shoes", "a coat and a bag that will not fit") * 20


def image_folder(folder: Path) -> Component:
    for number in range(6):
        path = folder / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (6, 4), (40 * number, 0, 0)).save(path)
    return ImageFolder(url=str(folder))


def fashion_mnist(folder: Path) -> Component:
    pixels = np.broadcast_to(np.arange(10_000, dtype=np.uint32)[:, None, None] % 256, (10_000, 28, 28))
    for name, array in (("images-idx3", pixels), ("labels-idx1", np.arange(10_000) % len(CLASS_NAMES))):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
        (folder / f"t10k-{name}-ubyte").write_bytes(header + array.astype(np.uint8).tobytes())
    return FashionMNIST(root=str(folder), split="test")


def captioned_folder(folder: Path) -> Component:
    lines = []
    for number in range(6):
        (folder / f"{number}.png").write_bytes(picture(number))
        lines.append(json.dumps({"file": f"{number}.png", "caption": f"caption {number}", "label": "ab"[number % 2]}))
    (folder / "captions.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return CaptionedFolder(url=str(folder))


def with_captions(folder: Path) -> Component:
    source = captioned_folder(folder)
    assert isinstance(source, CaptionedFolder)
    opened = source.open()
    names = [opened.read(index).identifier for index in range(len(opened))]
    lines = [json.dumps({"identifier": name, "captions": [f"{name} again", "a picture"]}) for name in names]
    (folder / "synthetic.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return WithCaptions(source=source, captions=str(folder / "synthetic.jsonl"))


def webdataset(folder: Path) -> Component:
    captioned_shard(folder / "d-00000.tar", 0, 3)
    captioned_shard(folder / "d-00001.tar", 3, 3)
    kinds = {"alt": "txt", "synthetic": "json#synthetic"}
    return WebDataset(
        url=str(folder / "d-{00000..00001}.tar"), captions=kinds, label="json#category", class_names=("a", "b")
    )


def zarr(folder: Path) -> Component:
    captions = captioned_folder(folder)
    assert isinstance(captions, CaptionedFolder)
    write_zarr(str(folder / "images.zarr"), captions.open())
    return ZarrImages(url=str(folder / "images.zarr"))


def parquet(folder: Path) -> Component:
    for number in range(2):
        images = [{"bytes": picture(3 * number + row), "path": f"{row}.png"} for row in range(3)]
        columns = {"image": images, "label": [0, 1, 1], "text": [f"caption {number} {row}" for row in range(3)]}
        pq.write_table(pa.table(columns), folder / f"train-{number}.parquet", row_group_size=2)
    return Parquet(url=str(folder), captions={"alt": "text"}, class_names=("a", "b"))


def bpe(folder: Path) -> Component:
    return BPE.train(CORPUS, folder / "tokenizer.json", vocabulary_size=280)


def clip_bpe(folder: Path) -> Component:
    return ClipBPE.from_file(write_clip_merges(folder))


def sentence_piece(folder: Path) -> Component:
    return SentencePiece.from_file(write_sentencepiece(folder, CORPUS))


def codes(folder: Path) -> Component:
    return Codes(tokenizer=write_kmeans(folder / "centres.safetensors"))


def dvae(folder: Path) -> Component:
    return write_dvae(folder / "dvae.safetensors")


def kmeans(folder: Path) -> Component:
    return write_kmeans(folder / "centres.safetensors", space="normalized")


def benchmark(folder: Path) -> Component:
    write_cifar10(folder)
    return Benchmark(dataset="cifar10", root=str(folder), split="test", sizes="any")


def lora(_: Path) -> Component:
    return LoRA(trunk=ViT(width=16, depth=2, num_heads=2, patch_size=4), rank=2)


def torchvision(_: Path) -> Component:
    from torchvision.models import ShuffleNetV2, list_models
    from torchvision.models._api import register_model

    # All networks that torchvision names are larger: test_baselines.py has one of them.
    name = "shufflenet_v2_of_three_blocks"
    if name not in list_models():
        register_model(name)(lambda **_: ShuffleNetV2([1, 1, 1], [8, 16, 24, 32, 40]))
    return TorchvisionTrunk(model=name, output="conv5")


def pretrained(folder: Path) -> Component:
    file = folder / "trunk.safetensors"
    save_file(ViT(width=16, depth=2, num_heads=2, patch_size=4).build().state_dict(), file)
    return Pretrained(url=str(file), num_heads=2)


def transformers_towers(_: Path) -> Component:
    return untrained("siglip")  # CLIP needs a class token, which the trunk that the checks build has not


MAKERS: Mapping[str, Callable[[Path], Component]] = MappingProxyType(
    {
        "objectives/transformers_towers": transformers_towers,
        "sources/benchmark": benchmark,
        "sources/captioned_folder": captioned_folder,
        "sources/fashion_mnist": fashion_mnist,
        "sources/image_folder": image_folder,
        "sources/parquet": parquet,
        "sources/webdataset": webdataset,
        "sources/with_captions": with_captions,
        "sources/zarr": zarr,
        "targets/codes": codes,
        "tokenizers/bpe": bpe,
        "tokenizers/clip_bpe": clip_bpe,
        "tokenizers/dvae": dvae,
        "tokenizers/kmeans": kmeans,
        "tokenizers/sentencepiece": sentence_piece,
        "trunks/lora": lora,
        "trunks/pretrained": pretrained,
        "trunks/torchvision": torchvision,
    }
)
