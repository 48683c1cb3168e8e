"""What plain values have in common, and where they differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

_NOTHING = object()


@attrs.frozen
class Difference:
    """One place at which records differ."""

    path: str
    values: tuple[str | None, ...]
    """As JSON, one per record; None where a record has nothing there."""


def shared_and_own(records: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What all ``records`` say alike, and what is left of each; nested mappings are compared part by part.

    What is nested deeper belongs together, such as all that a probe chose, and is shared as a whole or not at all. One
    record alone shares everything with itself.
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
    """The places at which ``records`` differ, in the order in which they first occur; empty for fewer than two."""
    flat = [dict(_flat(record, "")) for record in records]
    found = []
    for path in _keys(flat):
        values = [_shown(record.get(path, _NOTHING)) for record in flat]
        if len(set(values)) > 1:
            found.append(Difference(path, tuple(values)))
    return found


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every plain value with its path; lists of plain values are one value."""
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
