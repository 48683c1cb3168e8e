"""Encoders in files that are not local: over HTTP, from a server that fails on purpose, and in another store."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import fsspec
import pytest
import torch
from failing_server import RESET, FailingServer, failing_server
from golden_files import FOLDER, tensors
from loguru import logger
from safetensors.torch import save_file
from shards import picture

from aimcore import AimcoreError, Data, Experiment, Weights, load_encoder
from aimcore.contracts.errors import LocationError, UnreadableSample
from aimcore.contracts.uncertainty import UncertainEncoder
from aimcore.data.pictures import find_pictures, read_picture
from aimcore.encoders import Encoder
from aimcore.engine import initial_module
from aimcore.engine.initial_weights import hash_of
from aimcore.io import fetched_files, retries
from aimcore.io.locations import file_system
from aimcore.io.preprocessor_files import IMAGENET, preprocessor_config
from aimcore.io.retries import StoreUnavailable
from aimcore.io.safetensors_folders import write_weights
from aimcore.io.weight_files import open_weights
from aimcore.io.weight_siblings import UnreadableWeights
from aimcore.run import command
from aimcore_objectives import NoTraining
from aimcore_sources import BundledEmoji
from aimcore_tokenizers.files import read_file

AIMV2 = FOLDER / "aim_v2.weights.safetensors"
WEIGHTS = AIMV2.read_bytes()
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
SMALL = ("config.json", "preprocessor_config.json", "encoder.json")


class Attack:
    """What an attacker would put in a pickle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FailingServer]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "model").mkdir()
    shutil.copy(AIMV2, folder / "model" / "model.safetensors")
    (folder / "model" / "preprocessor_config.json").write_text(json.dumps(preprocessor_config(IMAGENET, 56)))
    (folder / "model" / "config.json").write_text('{"license": "of the config"}')
    (folder / "shards").mkdir()
    write_weights(folder / "shards", tensors("aim_v2.weights"), 300_000)
    torch.save(tensors("aim_v2.weights"), folder / "model.pth")
    torch.save({"model": Attack(folder / "ran")}, folder / "attack.pth")
    save_file({"fc.bias": torch.zeros(100_000)}, folder / "other.safetensors")
    (folder / "page.html").write_text("<!doctype html>")
    with failing_server(folder) as server:
        yield server


@pytest.fixture
def server(running: FailingServer, request: pytest.FixtureRequest) -> FailingServer:
    running.reset()
    running.has_ranges = getattr(request, "param", True)
    return running


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(retries, "WAITS", (0.5, 1.0, 2.0))
    monkeypatch.setattr(retries.time, "sleep", slept.append)
    monkeypatch.setattr(fetched_files, "BLOCK", 2**18)  # the file has four blocks
    return slept


EACH_SERVER = pytest.mark.parametrize("server", [True, False], ids=["ranges", "no_ranges"], indirect=True)


def opened(url: str, **options: object) -> Encoder:
    return load_encoder(url, **{"num_heads": 4, "preprocessing": "clip", **options})  # type: ignore[arg-type]


def assert_whole(encoder: Encoder) -> None:
    """Its weights are those of the file."""
    expected = opened(str(AIMV2)).module.state_dict()
    found = encoder.module.state_dict()
    assert found.keys() == expected.keys()
    assert all(found[name].equal(value) for name, value in expected.items())
    assert (encoder.source.sha256, encoder.source.num_bytes) == (SHA256, len(WEIGHTS))


def sent(server: FailingServer, name: str) -> int:
    """Bytes of a file that the server has sent."""
    return sum(number for path, number in server.sent if path == name)


@EACH_SERVER
def test_an_encoder_with_the_files_next_to_it(server: FailingServer) -> None:
    encoder = opened(f"{server.url}/model/model.safetensors", preprocessing=None)
    assert_whole(encoder)
    assert encoder.known_preprocessing.preprocessing == IMAGENET
    assert encoder.source.licence == "of the config"


def test_the_values_are_sent_once(server: FailingServer) -> None:
    opened(f"{server.url}/model/model.safetensors")
    assert len(WEIGHTS) <= sent(server, "model/model.safetensors") < 1.5 * len(WEIGHTS)


def test_of_a_file_that_does_not_fit_only_the_beginning_is_sent(server: FailingServer) -> None:
    with pytest.raises(AimcoreError, match=r"is in no known layout: it has the tensors 'fc\.bias'"):
        opened(f"{server.url}/other.safetensors")
    assert 0 < sent(server, "other.safetensors") < 300_000 < (server.folder / "other.safetensors").stat().st_size


@EACH_SERVER
@pytest.mark.parametrize("name", ["model/model.safetensors", "model.pth"])
def test_transfers_that_are_cut_are_continued(server: FailingServer, name: str, waits: list[float]) -> None:
    expected = opened(str(AIMV2)).module.state_dict()
    server.num_cut = 3 if server.has_ranges else 6  # the first ones are cut after what is read of them
    found = opened(f"{server.url}/{name}").module.state_dict()
    assert all(found[key].equal(value) for key, value in expected.items())
    assert server.num_cut == 0
    assert waits


@pytest.mark.parametrize("status", [503, 429, RESET])
def test_a_server_that_fails_first_and_then_works(server: FailingServer, status: int, waits: list[float]) -> None:
    server.heads_too, server.statuses = True, [status] * 4
    assert_whole(opened(f"{server.url}/model/model.safetensors"))
    assert waits[:1] == [0.5]


def test_a_server_that_fails_for_ever(server: FailingServer, waits: list[float]) -> None:
    server.heads_too, server.always = True, 503
    with pytest.raises(StoreUnavailable, match=r"model.safetensors' failed in 4 attempts within 4 s.*503"):
        opened(f"{server.url}/model/model.safetensors")
    assert waits == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("missing", ["none.safetensors", "none/model.safetensors", "model"])
def test_a_missing_file_is_an_error_at_once(server: FailingServer, missing: str, waits: list[float]) -> None:
    with pytest.raises(
        UnreadableWeights, match=r"there is no such file\. If it is a folder, give .* with / at the end"
    ):
        opened(f"{server.url}/{missing}")
    assert waits == []


def test_missing_neighbours_are_absent(server: FailingServer, waits: list[float]) -> None:
    shutil.copy(AIMV2, server.folder / "alone.safetensors")
    encoder = opened(f"{server.url}/alone.safetensors")
    assert encoder.source.licence != "of the config"
    assert waits == []


@pytest.mark.parametrize("name", SMALL)
def test_a_neighbour_that_fails_is_not_absent(server: FailingServer, name: str) -> None:
    server.by_path[f"model/{name}"] = 500
    with pytest.raises(StoreUnavailable, match=rf"{name}' failed in 4 attempts.*500"):
        opened(f"{server.url}/model/model.safetensors", preprocessing=None)


@pytest.mark.parametrize("name", SMALL)
def test_a_neighbour_that_is_refused_is_a_warning(server: FailingServer, name: str) -> None:
    server.by_path[f"model/{name}"] = 403
    with pytest.warns(UncertainEncoder, match=rf"{name} is refused by its store .*403.*treated as missing"):
        opened(f"{server.url}/model/model.safetensors", preprocessing=None)


def test_a_neighbour_that_fails_first_and_then_works(server: FailingServer) -> None:
    server.num_requests = 0
    server.heads_too, server.statuses = True, [0, 0, 0, 0, 503, 503, 503]
    encoder = opened(f"{server.url}/model/model.safetensors", preprocessing=None)
    assert encoder.known_preprocessing.preprocessing == IMAGENET
    assert encoder.source.licence == "of the config"


def test_another_hash_is_refused(server: FailingServer) -> None:
    url = f"{server.url}/model/model.safetensors"
    assert_whole(opened(url, sha256=SHA256))
    with pytest.raises(AimcoreError, match=f"has sha256 {SHA256}, not 0000"):
        opened(url, sha256="0" * 64)


@EACH_SERVER
def test_a_folder_is_probed_for_the_usual_names(server: FailingServer) -> None:
    encoder = opened(f"{server.url}/model/", preprocessing=None)
    assert_whole(encoder)
    assert encoder.source.url == f"{server.url}/model/model.safetensors"
    assert encoder.known_preprocessing.preprocessing == IMAGENET


@EACH_SERVER
@pytest.mark.parametrize("place", ["shards/", "shards/model.safetensors.index.json"])
def test_shards(server: FailingServer, place: str) -> None:
    expected = opened(str(AIMV2)).module.state_dict()
    encoder = opened(f"{server.url}/{place}")
    assert len(encoder.source.files) > 2
    found = encoder.module.state_dict()
    assert all(found[key].equal(value) for key, value in expected.items())


def test_a_missing_shard_is_named(server: FailingServer) -> None:
    name = sorted((server.folder / "shards").glob("*.safetensors"))[1].name
    server.by_path[f"shards/{name}"] = 404
    with pytest.raises(UnreadableWeights, match=f"1 of its . shards are missing: {name}"):
        opened(f"{server.url}/shards/")


def test_a_folder_without_the_usual_names(server: FailingServer) -> None:
    with pytest.raises(
        UnreadableWeights, match=r"it has none of model\.safetensors, .* cannot be listed: give the URL"
    ):
        opened(f"{server.url}/empty/")


def test_a_web_page_is_no_file_of_weights(server: FailingServer) -> None:
    with pytest.raises(UnreadableWeights, match="It is a web page: give the URL of the file of weights"):
        opened(f"{server.url}/page.html")


def test_a_pickle_with_code_in_it_is_refused_and_nothing_runs(server: FailingServer) -> None:
    with pytest.raises(UnreadableWeights, match=rf"attack.pth.*would run {os.mkdir.__module__}.mkdir"):
        opened(f"{server.url}/attack.pth")
    assert not (server.folder / "ran").exists()


def test_a_query_goes_with_every_file(server: FailingServer) -> None:
    encoder = opened(f"{server.url}/model/model.safetensors?token=a/b", preprocessing=None)
    assert encoder.known_preprocessing.preprocessing == IMAGENET
    assert len(opened(f"{server.url}/shards/model.safetensors.index.json?token=a/b").source.files) > 2


def test_secrets_of_a_url_are_neither_shown_nor_saved(server: FailingServer, tmp_path: Path) -> None:
    url = f"{server.url}/model/model.safetensors?token=hush"
    lines: list[str] = []
    log = logger.add(lines.append)
    try:
        encoder = opened(url)
    finally:
        logger.remove(log)
    encoder.save(tmp_path / "saved")
    assert encoder.to_recipe()["initial_weights"]["url"] == url
    shown_or_saved = [*lines, repr(encoder), *(path.read_text() for path in (tmp_path / "saved").glob("*.json"))]
    assert not [text for text in shown_or_saved if "hush" in text]
    assert encoder.source.name == f"{server.url}/model/model.safetensors"


def test_the_log_shows_how_much_was_fetched(server: FailingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetched_files, "SECONDS_BETWEEN_LINES", 0.0)
    lines: list[str] = []
    logger.enable("aimcore")
    handler = logger.add(lambda line: lines.append(str(line)), format="{message}")
    try:
        opened(f"{server.url}/model/model.safetensors")
    finally:
        logger.remove(handler)
        logger.disable("aimcore")
    shares = [line.rpartition("(")[2].strip() for line in lines if line.startswith("fetching ")]
    assert shares == ["29%)", "57%)", "86%)", "100%)"]  # 2**18 bytes are 0.287 of 914,240


def test_nothing_is_left_on_the_disk(server: FailingServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    weights = open_weights(f"{server.url}/model/model.safetensors")
    state = weights.load()
    assert len(list(tmp_path.iterdir())) == 1
    del weights
    assert list(tmp_path.iterdir()) == []
    assert state.keys() == tensors("aim_v2.weights").keys()
    with pytest.raises(AimcoreError):
        opened(f"{server.url}/attack.pth")
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_in_another_store() -> None:
    files = fsspec.filesystem("memory")
    files.pipe("/bucket/model/model.safetensors", WEIGHTS)
    files.pipe("/bucket/model/preprocessor_config.json", json.dumps(preprocessor_config(IMAGENET, 56)).encode())
    for url in ("memory://bucket/model", "memory://bucket/model/", "memory://bucket/model/model.safetensors"):
        encoder = opened(url, preprocessing=None)
        assert_whole(encoder)
        assert encoder.known_preprocessing.preprocessing == IMAGENET


def test_a_chain_with_a_cache_keeps_the_file(
    server: FailingServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = f"simplecache::{server.url}/model/model.safetensors"
    with pytest.raises(UnreadableWeights, match=r"protocol 'simplecache' is not allowed.*AIMCORE_ALLOW_PROTOCOLS"):
        opened(url)
    monkeypatch.setenv("AIMCORE_ALLOW_PROTOCOLS", "simplecache")
    monkeypatch.setitem(fsspec.config.conf, "simplecache", {"cache_storage": str(tmp_path)})
    assert_whole(opened(url))
    server.sent.clear()
    encoder = opened(url, preprocessing=None)
    assert_whole(encoder)
    assert encoder.known_preprocessing.preprocessing == IMAGENET
    assert sent(server, "model/model.safetensors") == 0


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(*_: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", lacks)
    with pytest.raises(LocationError, match="Install s3fs to access S3: pip install s3fs"):
        file_system("s3://bucket/model.safetensors")
    with pytest.raises(UnreadableWeights, match="pip install s3fs"):
        opened("s3://bucket/model/")


def test_inspect_over_http(server: FailingServer, capfd: pytest.CaptureFixture[str]) -> None:
    assert command(["inspect", f"{server.url}/model/", "--num-heads", "4", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["sha256"] == SHA256
    server.heads_too, server.always = True, 500
    assert command(["inspect", f"{server.url}/model/"]) == 2
    assert "failed in 4 attempts" in capfd.readouterr().err


def test_initial_weights_are_tried_again(server: FailingServer, waits: list[float]) -> None:
    url = f"{server.url}/model/model.safetensors"
    server.heads_too, server.statuses = True, [503] * 4
    assert hash_of(url) == SHA256
    assert waits[:2] == [0.5, 1.0]
    server.always = 503
    with pytest.raises(StoreUnavailable):
        hash_of(url)


def test_hash_and_values_of_initial_weights_are_of_one_transfer(server: FailingServer) -> None:
    encoder = opened(str(AIMV2))
    begins = {**encoder.to_recipe()["initial_weights"], "url": f"{server.url}/model/model.safetensors"}
    data = Data(train=BundledEmoji(), validation=BundledEmoji(), batch_size=2)
    run = Experiment(
        name="one",
        data=data,
        trunk=encoder.trunk,
        objective=NoTraining(),
        initial_weights=Weights(**begins),
        num_steps=0,
    )
    found = initial_module(run).state_dict()
    assert all(found[f"trunk.{name}"].equal(value) for name, value in encoder.module.state_dict().items())
    assert len(WEIGHTS) <= sent(server, "model/model.safetensors") < 1.5 * len(WEIGHTS)


def test_a_picture_is_tried_again(server: FailingServer, waits: list[float]) -> None:
    (server.folder / "one.png").write_bytes(picture(1))
    url = f"{server.url}/one.png"
    expected = read_picture(url)[1]
    server.sent.clear()
    assert list(find_pictures([url])) == [url]
    assert server.sent == []  # asking whether it is a folder would have sent the file
    server.statuses = [503, 503]
    assert read_picture(url)[1].equal(expected)
    assert waits == [0.5, 1.0]
    server.always = 503
    with pytest.raises(StoreUnavailable, match=r"one\.png"):
        read_picture(url)
    server.always = 404
    with pytest.raises(UnreadableSample, match="there is no such file"):
        read_picture(url)


def test_the_file_of_a_tokenizer_is_tried_again(server: FailingServer, waits: list[float]) -> None:
    (server.folder / "tokenizer.json").write_bytes(b"{}")
    server.heads_too, server.statuses = True, [503] * 4
    assert read_file(f"{server.url}/tokenizer.json") == b"{}"
    assert waits
    server.always = 503
    with pytest.raises(StoreUnavailable, match=r"tokenizer\.json"):
        read_file(f"{server.url}/tokenizer.json")


def test_look_refuses_a_store_that_fails(
    server: FailingServer, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (server.folder / "one.png").write_bytes(picture(1))
    words = ["look", f"{server.url}/model/", f"{server.url}/one.png", "--num-heads", "4", "--page"]
    assert command([*words, str(tmp_path / "page.html")]) == 0
    server.by_path["one.png"] = 500
    assert command([*words, str(tmp_path / "other.html")]) == 2
    assert "one.png' failed in 4 attempts" in capfd.readouterr().err


class _ClientError(Exception):
    """Like botocore's, which is no OSError."""

    response: ClassVar = {"ResponseMetadata": {"HTTPStatusCode": 404}}


class NoCredentialsError(Exception):
    """Like botocore's."""


@pytest.mark.parametrize(("failure", "known"), [(_ClientError, "ClientError"), (NoCredentialsError, "BotoCoreError")])
def test_a_lacking_bucket_or_lacking_credentials_are_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch, waits: list[float], failure: type[Exception], known: str
) -> None:
    def fail() -> None:
        raise failure("no")

    monkeypatch.setitem(sys.modules, "botocore.exceptions", SimpleNamespace(**{known: failure}))
    with pytest.raises(OSError, match=f"{failure.__name__}: no"):
        retries.with_retries("s3://bucket/model.safetensors", fail)
    assert waits == []


@pytest.mark.parametrize(
    "words",
    [
        ["export", str(AIMV2), "s3://bucket/out", "--to", "timm"],
        ["export", str(AIMV2), "--out", "s3://bucket/out.safetensors"],
        ["look", str(AIMV2), "a.png", "--page", "s3://bucket/look.html"],
        ["search", "a.zarr", "a.png", "--page", "s3://bucket/search.html"],
    ],
)
def test_what_is_written_locally_is_no_url(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command(words)
    assert "must be a local path, got 's3://bucket/" in capfd.readouterr().err
