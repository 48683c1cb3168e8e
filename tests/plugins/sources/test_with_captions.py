"""The source ``with_captions``."""

import json
from pathlib import Path

import pytest

from aimcore import InvalidValue
from aimcore.contracts.errors import UnreadableSample
from aimcore.data.captions import wanted_captions
from aimcore.testing.caption_stand_in import StandInCaptioned
from aimcore_sources.with_captions import WithCaptions


def _file(folder: Path, *names: str) -> str:
    path = folder / "captions.jsonl"
    path.write_text("".join(json.dumps({"identifier": name, "captions": [name + " a", "b"]}) + "\n" for name in names))
    return str(path)


def test_captions_are_joined_beside_those_of_the_source(tmp_path: Path) -> None:
    source = WithCaptions(source=StandInCaptioned(), captions=_file(tmp_path, "picture 3")).open()
    assert source.read(3).captions == {"name": ("coat 0",), "synthetic": ("picture 3 a", "b")}
    assert wanted_captions(source.read(3), {"synthetic": 1.0}) == {"synthetic": ("picture 3 a", "b")}
    with pytest.raises(UnreadableSample, match=r"picture 4.*no captions of this identifier"):
        source.read(4)


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="picture 3 occurs twice"):
        WithCaptions(source=StandInCaptioned(), captions=_file(tmp_path, "picture 3", "picture 3")).open()
    source = WithCaptions(source=StandInCaptioned(), captions=_file(tmp_path, "picture 3"), kind="name").open()
    with pytest.raises(InvalidValue, match="choose another kind"):
        source.read(3)
