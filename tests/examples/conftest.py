"""What tests of the AIMv2 studies share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from vocabularies import write_clip_merges, write_sentencepiece

from aimcore.running.study_files import load_study

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small SentencePiece file where the paper's scale looks for SigLIP's, and merges where it looks for CLIP's."""
    load_study(EXAMPLES / "aimv2_objectives.py", "smoke")  # the settings are there to be changed once a study is
    path = write_sentencepiece(tmp_path, ["a red square", "two green circles", "nothing at all"])
    monkeypatch.setattr(sys.modules["aimv2_settings"], "VOCABULARY", path)
    monkeypatch.setattr(sys.modules["aimv2_settings"], "CLIP_VOCABULARY", write_clip_merges(tmp_path))
