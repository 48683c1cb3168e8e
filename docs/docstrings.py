"""A griffe extension: links for the roles of Sphinx in docstrings, examples as code, each component's paper."""

from __future__ import annotations

import ast
import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`(~?)([\w.]+)`")
_EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", flags=re.MULTILINE)
_COMPONENT = "component"


class Docstrings(griffe.Extension):
    """Applied to every object that is documented."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring where it stands."""
        if obj.docstring is not None:
            linked = _ROLE.sub(_link, obj.docstring.value)
            # Markdown would take ">>> " for a quotation in a quotation in a quotation.
            obj.docstring.value = _EXAMPLE.sub(r"```pycon\n\g<0>\n```", linked) + _paper_of(obj)


def _link(role: re.Match[str]) -> str:
    """A link if the name is on some page, else only the name."""
    shortened, name = role.groups()
    shown = name.rpartition(".")[2] if shortened else name
    return f'<autoref identifier="{name}" optional><code>{shown}</code></autoref>'


def _paper_of(obj: griffe.Object) -> str:
    """What the decorator ``@component(name, paper=...)`` says, as a last paragraph."""
    for decorator in getattr(obj, "decorators", ()):
        call = ast.parse(str(decorator.value), mode="eval").body
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == _COMPONENT:
            name, *_ = call.args
            paper = [ast.literal_eval(word.value) for word in call.keywords if word.arg == "paper"]
            source = f" Paper: {paper[0]}." if paper and paper[0] else ""
            return f"\n\nNamed `{ast.literal_eval(name)}` in recipes.{source}"
    return ""
