"""Freezing of parameters by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch import nn

from aimcore.contracts.errors import InvalidValue, Problem
from aimcore.contracts.messages import did_you_mean
from aimcore.experiment.parameter_names import is_in


def freeze(module: nn.Module, parts: Sequence[str]) -> None:
    """Freeze the parameters of ``parts``.

    Nothing else changes: dropout and buffers behave as in a trained module. If everything up to some point is frozen,
    autograd keeps no activations of that part.

    Raises:
        InvalidValue: some part matches no parameter, or nothing is left to train.
    """
    problems = tuple(problems_of(module, parts))
    if problems:
        raise InvalidValue("Experiment", problems)
    for name, parameter in module.named_parameters():
        if any(is_in(name, part) for part in parts):
            parameter.requires_grad_(False)


def problems_of(module: nn.Module, parts: Sequence[str]) -> Iterator[Problem]:
    """Yield why ``parts`` cannot be frozen; the module is not changed."""
    if not parts:
        return
    trained = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    for part in parts:
        if not any(is_in(name, part) for name in trained):
            yield Problem("frozen", names_none(part, trained))
    if not any(trains and not any(is_in(name, part) for part in parts) for name, trains in trained.items()):
        yield Problem("frozen", f"nothing is left to train: {', '.join(map(repr, parts))} cover every parameter")


def names_none(part: str, names: Iterable[str]) -> str:
    """Return the message for a ``part`` that matches none of ``names``.

    It suggests modules of the same depth with similar names, or else lists the first ones.
    """
    pieces = [name.split(".") for name in names]
    known = list(dict.fromkeys(".".join(piece[: part.count(".") + 1]) for piece in pieces))
    first = list(dict.fromkeys(piece[0] for piece in pieces))
    hint = did_you_mean(part, known) or f"; there are {', '.join(f'{name}...' for name in first)}"
    return f"{part!r} names no parameter{hint}"
