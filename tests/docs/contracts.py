"""``docs/contracts.md``: the values and modules that plugins receive and return, read from the code.

To write it again: ``PYTHONPATH=tests python -m docs.contracts``.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator

from docs.page import DOCS

from aimcore.contracts.batches import Batch, Sample, Text, View
from aimcore.contracts.decoders import Decoder, DecoderModule
from aimcore.contracts.evaluations import Evaluation
from aimcore.contracts.features import Attention, Features, Reading
from aimcore.contracts.heads import Head, HeadModule
from aimcore.contracts.images import Images, PatchGrid
from aimcore.contracts.layouts import FileLayout, StoredModel
from aimcore.contracts.objectives import Objective, ObjectiveModule
from aimcore.contracts.optimizers import Optimizer, ParameterGroup
from aimcore.contracts.orderings import Ordering
from aimcore.contracts.probes import Probe
from aimcore.contracts.results import Loss
from aimcore.contracts.sources import OpenSource, Source
from aimcore.contracts.targets import Target, TargetModule
from aimcore.contracts.tokenizers import FittingData, ImageTokenizer, ImageTokenizerModule, TextTokenizer, TokenizerFit
from aimcore.contracts.trackers import Tracker, TrackerRun
from aimcore.contracts.trunks import Trunk, TrunkModule

PAGE = DOCS / "contracts.md"
VALUES = (PatchGrid, Sample, Images, Text, View, Batch, Attention, Reading, Features, Loss)
MODULES = (TrunkModule, TargetModule, HeadModule, DecoderModule, ObjectiveModule, ImageTokenizerModule)
COMPONENTS = (
    Trunk, Ordering, Target, Head, Decoder, Objective, Probe, Source, OpenSource, ImageTokenizer, TokenizerFit,
    FittingData, TextTokenizer, Evaluation, Optimizer, ParameterGroup, Tracker, TrackerRun, FileLayout, StoredModel,
)  # fmt: skip

_INTRODUCTION = """\
# Contracts: the values and modules of plugins

This page lists the values that flow through a run, the torch modules that components build, and the components
themselves, with the objects that sources and trackers open. [Writing a
plugin](plugins.md) has examples. The [glossary](glossary.md#shape-suffixes) has the legend of shape suffixes. A *flat
position* is `b * N + n`.

The page is generated from the code by `PYTHONPATH=tests python -m docs.contracts`; a test keeps it up to date.
"""
_EMPTY = "attrs.field(factory=dict)"


def page() -> str:
    """The page."""
    return "\n".join([_INTRODUCTION, *_lines()])


def _lines() -> Iterator[str]:
    for title, classes in (("Values", VALUES), ("Modules", MODULES), ("Components", COMPONENTS)):
        yield f"## {title}\n"
        for cls in classes:
            yield f"### `{cls.__name__}`\n"
            yield _markdown(inspect.getdoc(cls) or "") + "\n"
            yield "| name | type | meaning |"
            yield "|---|---|---|"
            yield from (
                f"| `{name}` | `{_escaped(kind)}` | {_escaped(meaning)} |" for name, kind, meaning in _members(cls)
            )
            yield ""


def _members(cls: type) -> Iterator[tuple[str, str, str]]:
    """Fields, properties and methods of a class, in the order of the source."""
    (body,) = [node.body for node in _tree(cls) if isinstance(node, ast.ClassDef)]
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) != "role":
            default = "" if node.value is None else f" = {ast.unparse(node.value)}".replace(_EMPTY, "{}")
            said = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            yield ast.unparse(node.target), f"{ast.unparse(node.annotation)}{default}", _cell(str(said))
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            kind = ast.unparse(node.returns) if node.returns else ""
            yield _called(node), kind, _cell(ast.get_docstring(node) or "")


def _called(node: ast.FunctionDef) -> str:
    decorators = {ast.unparse(each) for each in node.decorator_list}
    if decorators & {"property", "cached_property"}:
        return node.name
    return f"{node.name}({', '.join(each.arg for each in node.args.args[1:])})"


def _tree(cls: type) -> list[ast.stmt]:
    return ast.parse(inspect.getsource(cls)).body


def _cell(docstring: str) -> str:
    """The first paragraph, in one line."""
    return _markdown(inspect.cleandoc(docstring).split("\n\n")[0]).replace("\n", " ")


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _markdown(docstring: str) -> str:
    return re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", docstring).replace("``", "`")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
