"""Arguments that an encoder cannot use: each is refused with what was given and what is expected."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from golden_files import FOLDER
from PIL import Image

from aimcore import AimcoreError, load_encoder
from aimcore.contracts.uncertainty import UncertainEncoder
from aimcore.encoders.encoder_source import EncoderError
from aimcore.io.weight_files import UnreadableWeights
from aimcore.run import command

AIMV2, LIT = FOLDER / "aim_v2.weights.safetensors", FOLDER / "aim_v2_lit.weights.safetensors"


def _aimv2() -> Any:
    return load_encoder(str(AIMV2), num_heads=4, preprocessing="clip")


@pytest.mark.parametrize(
    ("images", "got"),
    [
        (torch.zeros(1, 3, 56, 56, dtype=torch.uint8), r"torch\.uint8 \[1, 3, 56, 56\]"),
        (torch.zeros(0, 3, 56, 56), r"torch\.float32 \[0, 3, 56, 56\]"),
        (np.zeros((1, 3, 56, 56)), "ndarray"),
        ([torch.zeros(3, 56, 56)], "list"),
    ],
)
def test_only_batches_of_normalised_pixels_are_read(images: Any, got: str) -> None:
    with pytest.raises(EncoderError, match=rf"reads normalised images, floating-point .*; got {got}\. encoder\.trans"):
        _aimv2().features(images)


@pytest.mark.parametrize("layers", [1, "last", [0.5], [4], [-5]])
def test_layers_are_a_list_of_blocks(layers: Any) -> None:
    with pytest.raises(EncoderError, match=r"layers are a list of blocks of .*, 0 to 3 or -4 to -1, such as"):
        _aimv2().features(torch.zeros(1, 3, 56, 56), layers=layers)


@pytest.mark.parametrize(
    "image",
    ["picture.png", torch.zeros(3, 56, 56), torch.zeros(1, 3, 56, 56, dtype=torch.uint8), Image.new("RGB", (0, 5))],
)
def test_one_picture_with_pixels_is_transformed(image: Any) -> None:
    with pytest.raises(EncoderError, match="transform reads one Pillow image, or a tensor uint8"):
        _aimv2().transform(image)


@pytest.mark.parametrize(
    ("ids", "got"),
    [
        (torch.zeros(1, 13, dtype=torch.int64), r"torch\.int64 \[1, 13\] from 0 to 0"),
        (torch.tensor([[1, 97]]), r"\[1, 2\] from 1 to 97"),
        (torch.tensor([[-1, 96]]), "from -1 to 96"),
        (torch.tensor([[0.0]]), r"torch\.float32 \[1, 1\]"),
    ],
)
def test_ids_are_those_of_the_text_tower(ids: torch.Tensor, got: str) -> None:
    encoder = load_encoder(str(LIT), num_heads=4, text_heads=4, preprocessing="clip")
    with pytest.raises(EncoderError, match=rf"whole numbers \[B, T\] from 0 to 96, with T at most 12; got .*{got}"):
        encoder.embed_texts(ids)
    with pytest.raises(EncoderError, match=r"give a list of texts, such as \['a cat'\]"):
        encoder.embed_texts("a cat")
    for texts in ([], [1, 2], None):
        with pytest.raises(EncoderError, match=r"give a list of at least one text, such as .*; got (\[|None)"):
            encoder.embed_texts(texts)


def test_a_path_is_a_name_and_other_values_are_not() -> None:
    assert load_encoder(AIMV2, num_heads=4, preprocessing="imagenet").known_preprocessing.source == "chosen by the user"
    with pytest.raises(AimcoreError, match="url: must be a path or URL, got None"):
        load_encoder(None)  # type: ignore[arg-type]
    with pytest.raises(AimcoreError, match="preprocessing: must be one of 'clip', 'imagenet', or a Preprocessing; got"):
        load_encoder(AIMV2, num_heads=4, preprocessing="siglip")  # type: ignore[arg-type]
    with pytest.raises(UnreadableWeights, match="an empty name cannot be read as weights"):
        load_encoder("")


def test_an_encoder_says_what_it_is() -> None:
    assert repr(_aimv2()) == (
        f"<Encoder {AIMV2}: AIMv2, as its authors released it; width 64, 4 blocks, patches of 14 px, images of 56 px, "
        "227,776 parameters>"
    )


def test_an_assumed_normalisation_is_a_warning_of_python_too() -> None:
    with pytest.warns(UncertainEncoder, match="The first is assumed; choose with preprocessing="):
        load_encoder(AIMV2, num_heads=4)


class _NetworkFailure(Exception):
    """Like the errors of HTTP libraries, it is no OSError."""


def test_a_network_that_fails_is_an_error_for_the_user(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> bool:
        raise _NetworkFailure("name or service not known")

    monkeypatch.setitem(sys.modules, "httpx", SimpleNamespace(HTTPError=_NetworkFailure))
    monkeypatch.setattr(MemoryFileSystem, "isdir", fail)
    assert command(["inspect", "memory://encoder"]) == 2
    assert "memory://encoder cannot be read as weights: name or service not known" in capfd.readouterr().err


def test_the_command_names_its_own_options(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command(["inspect", str(AIMV2)]) == 2
    assert "by --num-heads, or in Python by num_heads=" in capfd.readouterr().err
    assert command(["inspect", str(AIMV2), "--num-heads", "4", "--preprocessing", "imagenet"]) == 0
    assert "(chosen by the user)" in " ".join(capfd.readouterr().out.split())
    for words in (
        ["inspect"],
        ["embed", "pictures", "out.zarr"],
        ["look", "picture.png"],
        ["export", "out", "--to", "timm"],
    ):
        assert command([words[0], str(tmp_path / "none"), *words[1:]]) == 2
        assert "there is no file or folder" in capfd.readouterr().err


def test_a_size_that_positions_contradict_is_refused() -> None:
    path, size = AIMV2, _aimv2().image_size
    assert load_encoder(path, num_heads=4, image_size=size, preprocessing="clip").image_size == size
    with pytest.raises(AimcoreError, match=f"its images have {size} px, and image_size=999 was given: leave it out"):
        load_encoder(path, num_heads=4, image_size=999, preprocessing="clip")
