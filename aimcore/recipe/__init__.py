"""Recipes: the record of an experiment as JSON or YAML, lossless, with the versions that wrote it.

A component is written as ``{"name": ..., **fields}``; every field is written, defaults included. When a recipe is
read, a bare name means a component with its default settings, and fields with a default may be omitted.
"""

from aimcore.recipe.changes import apply_changes, changed
from aimcore.recipe.document import SCHEMA_VERSION, checked, from_recipe, to_recipe
from aimcore.recipe.recipe_files import dumps, load, loads, read, save

__all__ = [
    "SCHEMA_VERSION",
    "apply_changes",
    "changed",
    "checked",
    "dumps",
    "from_recipe",
    "load",
    "loads",
    "read",
    "save",
    "to_recipe",
]
