"""Exports of an encoder of AIMv2's size: other libraries open them with equal outputs, and tensors come back.

    python benchmarks/exports.py [--size L] [--image-size 224] [--folder DIR]

Weights are random. A file in the authors' layout is written, opened, and exported to the authors' layout, to
transformers and to timm (extras ``transformers``, ``timm``). Outputs are compared in float32, on two images.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aimcore import Encoder, load_encoder
from aimcore.encoders.export import export_encoder
from aimcore.encoders.recognition import layout_called
from aimcore_trunks import aimv2


def main() -> None:
    """Write, export, open and compare; print one line per format."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="L", choices=("L", "H", "1B", "3B"))
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--folder", type=Path, help="where the files go (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, torch.no_grad():
        compare_exports(options.size, options.image_size, options.folder or Path(temporary))


def compare_exports(size: Any, image_size: int, folder: Path) -> None:
    """Compare what each library gives for the same two images."""
    source = folder / "model.safetensors"
    save_file(random_weights(size, image_size), source)
    encoder = load_encoder(str(source))
    print(f"AIMv2-{size} at {image_size} px: {encoder.num_parameters:,} parameters, {source.stat().st_size:,} bytes")
    pixels_BCHW = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(1))
    wanted_BND = encoder.features(pixels_BCHW)
    assert isinstance(wanted_BND, Tensor), "no layers are asked for"
    readers: Mapping[str, Callable[[Path, Tensor], Tensor]] = {
        "apple": in_this_project,
        "transformers": in_transformers,
        "timm": in_timm,
    }
    for target, read in readers.items():
        start = time.perf_counter()
        export_encoder(encoder, folder / target, target)
        seconds = time.perf_counter() - start
        largest = float((read(folder / target, pixels_BCHW) - wanted_BND).abs().max())
        back = comes_back(encoder, source, folder / target)
        print(f"{target}: exported in {seconds:.0f} s, outputs differ by at most {largest:.1e}, {back}", flush=True)


def random_weights(size: Any, image_size: int) -> dict[str, Tensor]:
    """Return random weights in the authors' layout, norms and biases included."""
    torch.manual_seed(0)
    module = aimv2(size, image_size=image_size).build()
    for value in module.parameters():
        if value.dim() == 1:
            nn.init.normal_(value, 1.0, 0.1)
    state = {f"trunk.{name}": value for name, value in module.state_dict().items()}
    return layout_called("aimv2_authors").write(state)


def comes_back(encoder: Encoder, source: Path, folder: Path) -> str:
    """Describe whether every tensor of the export has the bytes of the source."""
    if folder.name == "apple":
        mine, theirs = load_file(source), load_file(folder / "model.safetensors")
    else:
        mine, theirs = encoder.state(), load_encoder(str(folder)).state()
    equal = mine.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in mine.items())
    return f"{len(theirs)} tensors {'equal' if equal else 'NOT EQUAL'} to those of the source"


def in_this_project(folder: Path, pixels_BCHW: Tensor) -> Tensor:
    """Read the folder with ``load_encoder``, and the plain module."""
    return load_encoder(str(folder)).read(pixels_BCHW).tokens_BND


def in_transformers(folder: Path, pixels_BCHW: Tensor) -> Tensor:
    """Read the folder with transformers."""
    from transformers import AutoModel

    tokens_BND: Tensor = AutoModel.from_pretrained(folder)(pixels_BCHW).last_hidden_state
    return tokens_BND


def in_timm(folder: Path, pixels_BCHW: Tensor) -> Tensor:
    """Read the folder with timm."""
    import timm

    model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    tokens_BND: Tensor = model.forward_features(pixels_BCHW)
    return tokens_BND


if __name__ == "__main__":
    main()
