"""Sources over HTTP, from a server that fails on purpose."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from failing_server import RESET, FailingServer, failing_server
from shards import captioned_shard, picture

from aimcore import OpenSource, UnreadableSample
from aimcore.contracts.errors import DataNotFound
from aimcore.io import retries
from aimcore.io.retries import StoreUnavailable
from aimcore_sources import CaptionedFolder, Parquet, WebDataset, ZarrImages, write_zarr
from aimcore_sources.webdataset_tar import ShardError


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FailingServer]:
    folder = tmp_path_factory.mktemp("served")
    captioned_shard(folder / "d.tar", 0, 2)
    (folder / "d.png").write_bytes(picture(1))
    (folder / "captions.jsonl").write_text('{"file": "d.png", "caption": "red"}\n{"file": "lost.png", "caption": "x"}')
    pq.write_table(pa.table({"image": [picture(0), picture(1)], "label": [1, 0]}), folder / "d.parquet")
    write_zarr(str(folder / "d.zarr"), CaptionedFolder(url=str(folder)).open(), progress=False)
    with failing_server(folder) as running:
        yield running


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(retries, "WAITS", (0.5, 1.0, 2.0))
    monkeypatch.setattr(retries.time, "sleep", slept.append)
    return slept


def _open(kind: str, server: FailingServer, folder: Path) -> OpenSource:
    server.reset()
    if kind == "webdataset":
        return WebDataset(url=f"{server.url}/d.tar", cache_folder=str(folder)).open()
    if kind == "parquet":
        return Parquet(url=f"{server.url}/d.parquet").open()
    if kind == "zarr":
        return ZarrImages(url=f"{server.url}/d.zarr").open()
    return CaptionedFolder(url=server.url).open()


KINDS = ("webdataset", "parquet", "zarr", "captioned_folder")


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_fails_a_few_times_changes_no_sample(
    kind: str, server: FailingServer, waits: list[float], tmp_path: Path
) -> None:
    expected = _open(kind, server, tmp_path).read(0).image
    opened = _open(kind, server, tmp_path)
    server.statuses = [503, 429]
    assert opened.read(0).image.equal(expected)
    assert waits[:2] == [0.5, 1.0]
    assert server.statuses == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_fails_for_ever_is_no_unreadable_sample(
    kind: str, server: FailingServer, waits: list[float], tmp_path: Path
) -> None:
    opened = _open(kind, server, tmp_path)
    server.always = 500
    with pytest.raises(StoreUnavailable, match=r"127.0.0.1.*failed in 4 attempts within 4 s.*500.*--resume"):
        opened.read(0)
    assert waits == [0.5, 1.0, 2.0]
    server.always = 0


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_opening_is_tried_again_too(kind: str, server: FailingServer, tmp_path: Path) -> None:
    expected = len(_open(kind, server, tmp_path / "other"))
    server.statuses = [500, 500]
    source = Parquet(url=f"{server.url}/d.parquet") if kind == "parquet" else WebDataset(url=f"{server.url}/d.tar")
    assert len(source.open()) == expected
    assert server.statuses == []


@pytest.mark.parametrize(("status", "times"), [(503, 2), (RESET, 4)])  # aiohttp repeats a request after a reset once
def test_a_store_that_fails_at_the_very_first_request_does_not_lack_the_file(
    status: int, times: int, server: FailingServer, waits: list[float], tmp_path: Path
) -> None:
    server.reset()
    server.heads_too, server.statuses = True, [status] * times
    assert len(WebDataset(url=f"{server.url}/d.tar", cache_folder=str(tmp_path)).open()) == 2
    assert waits[:1] == [0.5]


def test_a_missing_file_is_an_unreadable_sample_at_once(
    server: FailingServer, waits: list[float], tmp_path: Path
) -> None:
    with pytest.raises(UnreadableSample, match=r"lost\.png"):
        _open("captioned_folder", server, tmp_path).read(1)
    assert waits == []


def test_a_refused_request_is_not_repeated(server: FailingServer, waits: list[float], tmp_path: Path) -> None:
    opened = _open("captioned_folder", server, tmp_path)
    server.statuses = [403]
    with pytest.raises(UnreadableSample, match=r"d.png.*403"):
        opened.read(0)
    assert waits == []


def test_a_cut_shard_is_an_error_that_names_it(server: FailingServer) -> None:
    whole = (server.folder / "d.tar").read_bytes()
    (server.folder / "cut.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ShardError, match=r"cut\.tar"):
        WebDataset(url=f"{server.url}/cut.tar").open()
    whole = (server.folder / "d.parquet").read_bytes()
    (server.folder / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataNotFound, match=r"cut\.parquet cannot be read.*fetch it again"):
        Parquet(url=f"{server.url}/cut.parquet").open()
