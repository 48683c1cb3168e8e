"""Damaged and cut tar shards: each is an error that names the byte, none is read as a shorter shard."""

import io
import tarfile
from pathlib import Path

import pytest
from shards import captioned_shard, picture, write_shard

from aimcore_sources import WebDataset
from aimcore_sources.webdataset_tar import Member, ShardError, members_of

LONG = "f" * 90 + "/" + "n" * 120 + ".png"
BLOCK = 512


def archive(path: Path, names: list[str], format_: int = tarfile.GNU_FORMAT, content: bytes = b"x" * 700) -> bytes:
    with tarfile.open(path, "w", format=format_) as tar:
        for name in names:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return path.read_bytes()


def read(path: Path, content: bytes) -> list[Member] | ShardError:
    path.write_bytes(content)
    try:
        return list(members_of(str(path)))
    except ShardError as error:
        return error


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_lie_where_tarfile_puts_them_in_every_format(tmp_path: Path, format_: int) -> None:
    # ustar splits a long name at a slash and has no longer ones; GNU tar and pax give it blocks of its own.
    long = LONG if format_ != tarfile.USTAR_FORMAT else "f" * 90 + "/" + "n" * 90 + ".png"
    path = tmp_path / "x.tar"
    content = archive(path, ["a.png", long, "ä.png"], format_)
    found = list(members_of(str(path)))
    assert [member.name for member in found] == ["a.png", long, "ä.png"]
    assert all(content[member.offset : member.offset + member.size] == b"x" * 700 for member in found)


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_flipped_bit_in_a_header_or_the_end_mark_is_never_a_shorter_shard(tmp_path: Path, format_: int) -> None:
    path = tmp_path / "x.tar"
    content = archive(path, ["a.png", "b.png"], format_)
    good = list(members_of(str(path)))
    headers = [member.offset // BLOCK - 1 for member in good]
    end = good[-1].offset // BLOCK + 2  # 700 bytes take two blocks
    for block in (*headers, end, end + 1):
        for byte in range(block % 7, BLOCK, 7):
            damaged = bytearray(content)
            damaged[BLOCK * block + byte] ^= 1 << byte % 8
            found = read(path, bytes(damaged))
            # Equal members: the flip made a blank of a zero, or of a blank, in the field of the checksum itself.
            assert found == good or f"damaged at byte {BLOCK * min(block, end):,}: " in str(found)


def test_a_cut_shard_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    content = archive(path, ["a.png", "b.png"])
    good, end = list(members_of(str(path))), 2 * (BLOCK + 1024)
    for keep in (*range(0, end + 1024, 64), *range(0, end + 1024, BLOCK)):
        found = read(path, content[:keep])
        # Once two blocks of zeros are there, nothing is lost.
        assert isinstance(found, ShardError)
        assert f"damaged at byte {keep:,}" in str(found) or keep % BLOCK
    assert read(path, content[: end + 1024]) == good


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        (1536, "byte 1,536: the file ends without an end mark"),
        (1800, "byte 1,536: the header has a wrong checksum, or was cut"),
        (1400, r"byte 1,400: the file ends within 'a\.png', which takes bytes 512 to 1,536"),
        (3072 + 512, r"byte 3,584: the file ends without an end mark \(1,024 bytes of zeros\)"),
    ],
)
def test_the_error_names_shard_and_byte(tmp_path: Path, keep: int, said: str) -> None:
    path = tmp_path / "x.tar"
    found = read(path, archive(path, ["a.png", "b.png"])[:keep])
    with pytest.raises(ShardError, match=rf"x\.tar cannot be read by index: damaged at {said}"):
        raise found if isinstance(found, ShardError) else AssertionError(found)


def test_only_padding_may_follow_the_end_mark(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    whole = archive(path, ["a.png"])
    good = list(members_of(str(path)))
    assert len(whole) == 10240
    assert read(path, whole + bytes(65536 - 10240)) == good  # --blocking-factor=128
    assert "byte 10,240: data after the end mark" in str(read(path, whole + whole))
    assert "byte 1,536: a single block of zeros is not an end mark" in str(read(path, whole[:2048] + b"x" * BLOCK))
    assert "byte 1,536: more than 1,048,576 bytes of zeros" in str(read(path, whole + bytes(2**20)))
    assert "byte 0: more than 1,048,576 bytes of zeros" in str(read(path, bytes(2**21)))


def test_an_empty_archive_is_counted(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", {})
    write_shard(tmp_path / "1.tar", {"a.png": picture()})
    opened = WebDataset(url=str(tmp_path / "{0,1}.tar")).open()
    assert (len(opened), opened.left_out) == (1, {"shards without any member": 1})


def test_a_forged_long_name_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2**33
    found = read(path, header.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    assert "byte 0: ValueError: a header with 8,589,934,592 bytes of names" in str(found)


def test_headers_in_headers_are_an_error(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1
    found = read(tmp_path / "x.tar", (header.tobuf(tarfile.GNU_FORMAT) + b"x" + bytes(511)) * 2000 + bytes(1024))
    assert "byte 0: RecursionError" in str(found)


def test_an_index_of_a_damaged_shard_is_not_kept(tmp_path: Path) -> None:
    path = Path(captioned_shard(tmp_path / "x.tar", 0, 3))
    path.write_bytes(path.read_bytes()[:-9000])
    for _ in range(2):
        with pytest.raises(ShardError, match="damaged at byte"):
            WebDataset(url=str(path)).open()
    assert [file.name for file in tmp_path.iterdir()] == ["x.tar"]
