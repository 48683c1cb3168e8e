"""What protocol cards share, and what each has of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def shared_and_own(records: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the common part of ``records``, and the rest of each; nested mappings are compared part by part.

    Values that are nested deeper are shared as a whole or not at all, such as everything that a probe chose. A single
    record shares everything with itself.
    """
    return _split(records, nested=True)


def _split(
    records: Mapping[str, Mapping[str, Any]], *, nested: bool
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    shared: dict[str, Any] = {}
    own: dict[str, dict[str, Any]] = {name: {} for name in records}
    for key in _keys(records.values()):
        values = {name: record[key] for name, record in records.items() if key in record}
        if nested and len(values) == len(records) and all(isinstance(value, Mapping) for value in values.values()):
            inner, rest = _split(values, nested=False)
            if inner or not any(rest.values()):
                shared[key] = inner
            values = {name: part for name, part in rest.items() if part}
        elif len(values) == len(records) and len({_text(value) for value in values.values()}) == 1:
            shared[key] = next(iter(values.values()))
            continue
        for name, value in values.items():
            own[name][key] = value
    return shared, own


def _keys(records: Any) -> list[str]:
    return list(dict.fromkeys(key for record in records for key in record))


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
