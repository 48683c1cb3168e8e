"""URLs that may be opened, and what happens to those that may not."""

import base64
import itertools
import json
import zipfile
from pathlib import Path
from typing import Any
from unittest import mock

import fsspec
import pytest
from fsspec.implementations.reference import ReferenceFileSystem
from toy_plugins import toy_experiment, toy_plugins

from aimcore import AimcoreError, Weights
from aimcore.contracts.errors import LocationError, Problem
from aimcore.data.pictures import read_picture
from aimcore.evaluation.feature_cache import FeatureCache
from aimcore.io.locations import (
    ALLOW,
    ARCHIVES,
    PROTOCOLS,
    file_system,
    local_path,
    location_problems,
    open_location,
    problem_with,
    zarr_location,
)
from aimcore.recipe import load, save
from aimcore_sources import BundledFashionMNIST, CaptionedFolder, ImageFolder, WebDataset, ZarrImages, write_zarr
from aimcore_tokenizers import BPE, ClipBPE, SentencePiece
from aimcore_trackers import JSONLines
from aimcore_trackers.tensorboard import TensorBoard

TEMPLATE = {"version": 1, "templates": {"u": "{{ cycler.__init__.__globals__.os.system('touch run') }}"}, "refs": {}}
HARMFUL = "reference://x::data:application/json;base64," + base64.b64encode(json.dumps(TEMPLATE).encode()).decode()
"""Templates of a reference file system were rendered by jinja2, outside of a sandbox."""
HASH = "0" * 64


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The reference file systems that were made."""
    made: list[Any] = []
    monkeypatch.setattr(ReferenceFileSystem, "__init__", lambda *given, **_: made.append(given))
    return made


@pytest.mark.parametrize(
    "url",
    [
        "/data/train",
        "train",
        "",
        "train of 2026/a b",
        r"C:\data\train",
        "C:/data",
        "C://data",
        "file:///data/[0-9]*.tar",
        "memory://weights/trunk.safetensors",
        "https://example.org/mirror/http://example.org/a.tar",
        "s3://bucket/train",
        "hf://datasets/owner/name/train.tar",
        "zip://a/1.png::s3://bucket/pictures.zip",
        "tar://1.png::/data/pictures.tar",
        "zip::/data/pictures.zip",
    ],
)
def test_paths_stores_and_members_of_archives_may_be_opened(url: str) -> None:
    assert problem_with(url) is None


@pytest.mark.parametrize(
    ("url", "protocol"),
    [
        (HARMFUL, "'reference' and 'data'"),
        ("reference:///data/references.json", "'reference'"),
        ("REFERENCE://x", "'REFERENCE'"),
        (" s3://bucket", "' s3'"),
        ("\nreference://x", "'\\nreference'"),
        ("./reference://x", "'./reference'"),
        ("data:text/plain,hello", "'data'"),
        ("zip://a::reference::/data/references.json", "'reference'"),
        ("reference::zip://a::/data/a.zip", "'reference'"),
        ("simplecache::s3://bucket/a", "'simplecache'"),
        ("filecache::/data/a", "'filecache'"),
        ("file://a::reference://b", "'file' and 'reference'"),
        ("/data/a::/data/b", "'file'"),
        ("local://a::/data/b", "'local'"),
        ("dask::/data/a", "'dask'"),
        ("async_wrapper::/data/a", "'async_wrapper'"),
        ("zip:///data/a.zip", "'zip'"),
        ("zip://a::tar", "'tar'"),
        ("github://owner:name@/a.tar", "'github'"),
        ("jupyter://host/a", "'jupyter'"),
    ],
)
def test_other_protocols_are_refused_by_name(url: str, protocol: str) -> None:
    named = f"protocols {protocol} are" if " and " in protocol else f"protocol {protocol} is"
    assert f"the {named} not allowed" in str(problem_with(url))


def test_every_protocol_that_fsspec_knows_is_decided_upon() -> None:
    """A new one is refused; this list says which are refused today."""
    known = set(fsspec.available_protocols())
    refused = {name for name in known if problem_with(f"{name}://x") is not None}
    assert {"reference", "generic", "dask", "dir", "cached", "git", "jupyter", "libarchive", "data"} <= refused
    assert known - refused <= PROTOCOLS


LINKS = (
    "", "a", "A", "/a", "C:/a", "zip", "zip://a", "tar://", "memory", "memory://a", "file://a", "data:", "data:,a",
    "reference", "reference://a", "Reference://a", "dask", "async_wrapper", "zip:///memory://a", "a/data:",
)  # fmt: skip


@pytest.mark.parametrize("num_links", [1, 2, 3])
def test_fsspec_reads_no_other_protocol_in_a_url_that_may_be_opened(num_links: int) -> None:
    for links in itertools.product(LINKS, repeat=num_links):
        url = "::".join(links)
        if problem_with(url) is None:
            chain = chain_of(url)
            assert chain[-1] in PROTOCOLS, url
            assert set(chain[:-1]) <= ARCHIVES, url


def chain_of(url: str) -> list[str]:
    """The protocols of the file systems that fsspec would make, one on top of the other."""
    with mock.patch("fsspec.core.filesystem") as made:
        fsspec.core.url_to_fs(url)
    chain, options = [made.call_args.args[0]], made.call_args.kwargs
    while "target_protocol" in options:
        chain.append(options["target_protocol"])
        options = options["target_options"]
    return chain


def test_the_user_allows_more_by_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW, "simplecache, github")
    assert problem_with("simplecache::github://owner:name@/a.tar") is None
    assert "'reference'" in str(problem_with("simplecache::reference://x"))
    assert "simplecache" in str(problem_with("reference://x")).partition("Give a path")[2]


def test_a_refusal_is_short_and_says_how_to_allow_more() -> None:
    message = str(problem_with(f"reference://{'x' * 1_000_000}"))
    assert len(message) < 1000
    assert "set the environment variable AIMCORE_ALLOW_PROTOCOLS" in message


def test_nothing_is_imported_or_made_before_it_is_refused(opened: list[Any]) -> None:
    with pytest.raises(LocationError, match="the protocols 'reference' and 'data' are not allowed"):
        file_system(HARMFUL)
    assert not opened


PLACES = {
    "weights": lambda url: Weights(url=url),
    "image_folder": lambda url: ImageFolder(url=url).open(),
    "image_folder.names": lambda url: ImageFolder(url="/data", names=url),
    "captioned_folder": lambda url: CaptionedFolder(url=url).open(),
    "webdataset": lambda url: WebDataset(url=url).open(),
    "webdataset, braces": lambda url: WebDataset(url="{" + url.partition("://")[0] + ",s3}://x").open(),
    "zarr": lambda url: ZarrImages(url=url).open(),
    "write_zarr": lambda url: write_zarr(url, BundledFashionMNIST().open()),
    "bpe": lambda url: BPE(path=url, sha256=HASH),
    "bpe.from_file": lambda url: BPE.from_file(url),
    "clip_bpe": lambda url: ClipBPE(path=url, sha256=HASH),
    "sentence_piece": lambda url: SentencePiece(path=url, sha256=HASH),
    "jsonl": lambda url: JSONLines(url=url).open("runs/one", {}, 0),
    "tensorboard": lambda url: TensorBoard(log_dir=url),
    "features": lambda url: FeatureCache(url),
    "pictures": lambda url: read_picture(url),
    "recipe.load": lambda url: load(f"{url}.json", toy_plugins()),
    "recipe.save": lambda url: save(f"{url}.json", toy_experiment(), toy_plugins()),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_harmful_url_is_refused_wherever_a_url_can_be_given(place: str, opened: list[Any]) -> None:
    with pytest.raises(AimcoreError, match="the protocol 'reference' is"):
        PLACES[place]("reference://x::memory://y")
    assert not opened


def test_files_are_written_and_read_by_url_and_glob_characters_are_ordinary(tmp_path: Path) -> None:
    for url in ("memory://new/folder/a[1]*.txt", str(tmp_path / "new" / "a[1]*.txt")):
        with open_location(url, "w", encoding="utf-8") as file:
            file.write("ä")
        with open_location(url) as file:
            assert file.read() == b"\xc3\xa4"


def test_a_member_of_an_archive_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("b/c.txt", "hello")
    with open_location(f"zip://b/c.txt::{tmp_path}/a.zip") as file:
        assert file.read() == b"hello"


def test_what_is_on_this_machine_has_a_path(tmp_path: Path) -> None:
    assert local_path(f"file://{tmp_path}/a") == tmp_path / "a" == zarr_location(f"file://{tmp_path}/a")
    assert local_path(tmp_path / "a::b") == tmp_path / "a::b"
    assert local_path("memory://a") is None
    assert zarr_location("memory://a") == "memory://a"


def test_a_null_character_is_refused() -> None:
    for url in ("a\0b", Path("a\0b"), "memory://a\0"):
        with pytest.raises(LocationError, match="cannot be opened: it contains a null character"):
            file_system(url)


@pytest.mark.parametrize("url", ["sftp://", "zip://a::/nowhere/a.zip"])
def test_what_fsspec_cannot_open_is_named(url: str) -> None:
    with pytest.raises(LocationError, match=f"'{url}' cannot be opened: "):
        file_system(url)


def test_an_empty_place_is_refused() -> None:
    """It would be the working directory, or with a name behind it the root of the file system."""
    (problem,) = location_problems("url", " ")
    assert problem == Problem("url", "must be a path or URL, got an empty text")
