"""Built-in layouts of files of weights: the released encoders, in all forms in which they exist."""

from collections.abc import Sequence

from aimcore import hookimpl
from aimcore.contracts.layouts import FileLayout
from aimcore_layouts.authors import AIMAuthors, AIMv2Authors


@hookimpl
def layouts() -> Sequence[type[FileLayout]]:
    """The layouts of AIM's and AIMv2's authors."""
    return [AIMAuthors, AIMv2Authors]


__all__ = ["AIMAuthors", "AIMv2Authors"]
