"""Tar shards of small pictures, for tests."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

from PIL import Image


def picture(red: int = 0, format_name: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), (red, 0, 0)).save(buffer, format_name)
    return buffer.getvalue()


def write_shard(path: Path, members: Mapping[str, bytes] | list[tuple[str, bytes]], mode: str = "w") -> str:
    """A tar file of ``members`` in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items() if isinstance(members, Mapping) else members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return str(path)


def captioned_shard(path: Path, first: int, count: int) -> str:
    """Samples ``s<number>`` whose pictures are as red as their number, with a caption and JSON."""
    members = {}
    for number in range(first, first + count):
        members[f"s{number:03}.png"] = picture(number)
        members[f"s{number:03}.txt"] = f"caption {number}".encode()
        document = {"synthetic": [f"long {number}", f"longer {number}"], "category": "ab"[number % 2]}
        members[f"s{number:03}.json"] = json.dumps(document).encode()
    return write_shard(path, members)
