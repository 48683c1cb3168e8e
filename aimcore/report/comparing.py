"""Common and different parts of plain values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

_NOTHING = object()


@attrs.frozen
class Difference:
    """One path at which records differ."""

    path: str
    values: tuple[str | None, ...]
    """The values as JSON, one per record; None if a record has no value there."""


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


def differences(records: Sequence[Any]) -> list[Difference]:
    """Yield the paths at which ``records`` differ, in the order in which they first occur; none for fewer than two."""
    flat = [dict(_flat(record, "")) for record in records]
    found = []
    for path in _keys(flat):
        values = [_shown(record.get(path, _NOTHING)) for record in flat]
        if len(set(values)) > 1:
            found.append(Difference(path, tuple(values)))
    return found


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield every plain value with its path. A list of plain values is one value."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        for index, inner in enumerate(value):
            yield from _flat(inner, f"{path}.{index}")
    else:
        yield path, value


def _keys(records: Any) -> list[str]:
    return list(dict.fromkeys(key for record in records for key in record))


def _shown(value: Any) -> str | None:
    return None if value is _NOTHING else _text(value)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
