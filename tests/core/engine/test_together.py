"""Errors that processes share, as other processes show them."""

import traceback
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from aimcore.contracts.errors import RunFolderError
from aimcore.engine import distributed


def refuse() -> NoReturn:
    raise RunFolderError("the folder is in use")


def test_the_traceback_of_another_process_is_the_cause_and_nothing_that_users_are_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(distributed, "from_first", lambda value: sent.append(value) or sent[0])
    errors = []
    for rank in (0, 1):
        here = SimpleNamespace(is_initialized=lambda: True, get_world_size=lambda: 2, get_rank=lambda at=rank: at)
        monkeypatch.setattr(distributed, "dist", here)
        with pytest.raises(RunFolderError, match=r"^the folder is in use$") as caught:
            distributed.on_first_rank(refuse)
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert not hasattr(errors[1], "__notes__")
    assert "on process 0:\nTraceback" in "".join(traceback.format_exception(errors[1]))
    assert "in refuse" in "".join(traceback.format_exception(errors[1]))
