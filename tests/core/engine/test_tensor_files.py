"""A damaged safetensors file is refused by name before anything is allocated for it."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from core.engine.toys import experiment
from core.mutations import mutated
from safetensors.torch import save, save_file

from aimcore import Experiment, Weights
from aimcore.contracts.errors import AimcoreError
from aimcore.engine import WeightsMismatch, WeightsNotFinite, WeightsNotFound, build_module, initial_module
from aimcore.engine.initial_weights import check_weights
from aimcore.io.tensor_files import NotSafetensors, read_header

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16), "c": torch.zeros(0)}
HEAD = 8


def parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a file, and what follows."""
    end = HEAD + int.from_bytes(content[:HEAD], "little")
    return json.loads(content[HEAD:end]), content[end:]


def together(header: bytes, values: bytes) -> bytes:
    return len(header).to_bytes(HEAD, "little") + header + values


def edited(edit: Callable[[dict[str, Any]], object]) -> bytes:
    header, values = parts(save(STATE))
    edit(header)
    return together(json.dumps(header).encode(), values)


WHOLE = save(STATE)
DAMAGED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "does not begin with the length of a header"),
    "seven bytes": (bytes(7), "does not begin with the length"),
    "a length of nothing": (bytes(8), "does not begin with the length"),
    "a huge length": (b"\xff" * 100, "does not begin with the length"),
    "a length beyond the end": ((10**7).to_bytes(8, "little") + b"{}", "should begin with a header of 10000000"),
    "cut in the header": (WHOLE[:40], "has 40 bytes and should begin with a header of .*: it was cut short"),
    "cut in the values": (WHOLE[:-1], "describes 32 bytes of values, and it has 31: it was cut short"),
    "more than values": (WHOLE + b"x", "describes 32 bytes of values, and it has 33"),
    "no JSON": (together(b"not json", b""), "its header is not JSON"),
    "not UTF-8": (together(b'{"\xff": 1}', b""), "its header is not JSON"),
    "deep": (together(b"[" * 10**6, b""), "its header is not JSON"),
    "an integer of 5,000 digits": (together(b'{"a": ' + b"9" * 5000 + b"}", b""), "its header is not JSON"),
    "an entry twice": (together(b'{"a": 1, "a": 1}', b""), "it has an entry twice"),
    "a list": (together(b"[1]", b""), "not a JSON object"),
    "escapes in a name": (edited(lambda h: h.update({"\x1b[2J": h.pop("c")})), r"an entry of the name '\\x1b\[2J'"),
    "half a character in a name": (edited(lambda h: h.update({"\ud800": h.pop("c")})), r"of the name '\\ud800'"),
    "a long name": (edited(lambda h: h.update({"c" * 10**6: h.pop("c")})), "it has an entry of the name 'ccc"),
    "an entry of nothing": (edited(lambda h: h.update(a=None)), "entry 'a' must have a dtype, a shape and data_offs"),
    "no dtype": (edited(lambda h: h["a"].pop("dtype")), "entry 'a' must have a dtype"),
    "an unknown dtype": (edited(lambda h: h["a"].update(dtype="F12")), "entry 'a' has a dtype that is not read here"),
    "a dtype in a list": (edited(lambda h: h["a"].update(dtype=["F32"])), "entry 'a' has a dtype that is not read"),
    "a shape of terabytes": (edited(lambda h: h["a"].update(shape=[10**6, 10**6])), "which takes 4000000000000 bytes"),
    "a shape beyond all": (edited(lambda h: h["a"].update(shape=[2**62, 2**62])), "entry 'a' has a shape that no"),
    "a shape of 4,000 digits": (edited(lambda h: h["a"].update(shape=[10**4000])), "entry 'a' has a shape that no"),
    "a negative shape": (edited(lambda h: h["a"].update(shape=[-2, -3])), "entry 'a' has a shape that no tensor has"),
    "a shape of true": (edited(lambda h: h["a"].update(shape=[True, 6])), "entry 'a' has a shape that no tensor has"),
    "a shape of floats": (edited(lambda h: h["a"].update(shape=[2.0, 3])), "entry 'a' has a shape that no tensor has"),
    "many dimensions": (edited(lambda h: h["a"].update(shape=[1] * 10**5)), "entry 'a' has a shape that no tensor"),
    "one offset": (edited(lambda h: h["a"].update(data_offsets=[0])), "entry 'a' must have two data_offsets"),
    "offsets as text": (edited(lambda h: h["a"].update(data_offsets="08")), "entry 'a' must have two data_offsets"),
    "offsets backwards": (
        edited(lambda h: h["a"].update(data_offsets=[24, 0])),
        "takes 24 bytes as F32, and -24",
    ),
    "too few bytes": (edited(lambda h: h["a"].update(data_offsets=[0, 8])), "takes 24 bytes as F32, and 8 bytes"),
    "an overlap": (edited(lambda h: h["b"].update(data_offsets=[0, 8])), "begin at byte 0 instead of 24|instead of 8"),
    "a gap": (edited(lambda h: h["b"].update(data_offsets=[30, 38])), "entry 'b' begin at byte 30 instead of 24"),
    "an entry less": (edited(lambda h: h.pop("a")), "begin at byte 24 instead of 0"),
    "metadata of numbers": (edited(lambda h: h.update(__metadata__={"a": 1})), "its metadata are not texts"),
    "metadata a list": (edited(lambda h: h.update(__metadata__=["a"])), "its metadata are not texts"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_header_is_reported_by_what_is_wrong_with_it(damage: str) -> None:
    content, message = DAMAGED[damage]
    with pytest.raises(NotSafetensors, match=message) as caught:
        read_header(io.BytesIO(content))
    assert len(str(caught.value)) < 400


def test_a_header_gives_every_entry_without_values() -> None:
    found = read_header(io.BytesIO(save(STATE, metadata={"vocabulary": "bytes"})))
    assert {name: (value.shape, value.dtype, value.device.type) for name, value in found.tensors.items()} == {
        name: (value.shape, value.dtype, "meta") for name, value in STATE.items()
    }
    assert found.metadata == {"vocabulary": "bytes"}


def test_a_file_that_can_only_be_read_forwards_is_checked_as_far_as_possible() -> None:
    class Stream(io.BytesIO):
        def seek(self, *_: int) -> int:
            raise io.UnsupportedOperation("seek")

    assert read_header(Stream(save(STATE))).tensors.keys() == STATE.keys()


def beginning(path: Path) -> Experiment:
    return experiment(initial_weights=Weights(url=str(path), part="all"))


@pytest.fixture(scope="module")
def fitted() -> dict[str, torch.Tensor]:
    return build_module(experiment(seed=5)).state_dict()


@pytest.mark.parametrize("damage", ["cut in the values", "a shape of terabytes", "an overlap", "metadata a list"])
def test_a_damaged_file_of_weights_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(DAMAGED[damage][0])
    for use in (initial_module, lambda run: check_weights(run, build_module(run), run.initial_weights)):
        with pytest.raises(WeightsNotFound, match=rf"cannot read {path}: it is not a safetensors file, or is damaged"):
            use(beginning(path))


def test_weights_that_are_not_finite_are_named_with_how_many(tmp_path: Path, fitted: dict[str, torch.Tensor]) -> None:
    state = {name: value.clone() for name, value in fitted.items()}
    state["head.weight"][0, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    state["trunk.embed.bias"] = state["trunk.embed.bias"].double()
    state["trunk.embed.bias"][0] = 1e300  # finite, but not in float32
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsNotFinite) as caught:
        initial_module(beginning(tmp_path / "model.safetensors"))
    assert caught.value.tensors == {"head.weight": (3, 16), "trunk.embed.bias": (1, 16)}
    assert "head.weight (3 of 16 values)" in str(caught.value)
    part = Weights(url=str(tmp_path / "model.safetensors"), part="all", fresh=("head", "trunk.embed.bias"))
    initial_module(experiment(initial_weights=part))


def test_weights_of_another_kind_of_numbers_are_refused(tmp_path: Path, fitted: dict[str, torch.Tensor]) -> None:
    state = {**fitted, "head.bias": torch.ones(1, dtype=torch.int64)}
    save_file(state, tmp_path / "model.safetensors")
    run = beginning(tmp_path / "model.safetensors")
    for use in (initial_module, lambda run: check_weights(run, build_module(run), run.initial_weights)):
        with pytest.raises(WeightsMismatch) as caught:
            use(run)
        assert caught.value.differences == ("of another kind of numbers: head.bias int64 instead of float32",)


def test_a_mutated_header_is_refused_or_means_the_same(tmp_path: Path, fitted: dict[str, torch.Tensor]) -> None:
    path, generator = tmp_path / "model.safetensors", random.Random(2)
    content = save(fitted)
    header_end = HEAD + int.from_bytes(content[:HEAD], "little")
    run, loaded = beginning(path), 0
    for _ in range(300):
        path.write_bytes(mutated(content[:header_end], generator) + content[header_end:])
        with suppress(AimcoreError):
            found = initial_module(run).state_dict()
            loaded += 1
            assert all(torch.equal(value, fitted[name]) for name, value in found.items())
    assert loaded < 150
