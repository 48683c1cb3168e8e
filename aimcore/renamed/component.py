"""Old name, until 0.3: see :mod:`aimcore.contracts.component`.

Importing this module makes it the attribute ``aimcore.component``, in place of the decorator of that name. So it can be
called like the decorator: ``from aimcore import component`` works before and after ``import aimcore.component``.
"""

import sys
from types import ModuleType
from typing import Any

from aimcore.contracts import component as contract
from aimcore.renamed.forwarding import forwarded

__getattr__ = forwarded("component", "contracts.component", "contracts.errors")


class _Decorator(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return contract.component(*arguments, **options)


sys.modules[__name__].__class__ = _Decorator
