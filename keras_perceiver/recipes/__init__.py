"""Recipes: one module a run. The docstring of each is its card."""

import importlib
import pkgutil


def names():
    """Returns the names of all recipes, sorted."""
    modules = pkgutil.iter_modules(__path__)
    return sorted(m.name for m in modules if not m.name.startswith("_"))


def get(name):
    """Returns the `Recipe` of a module of this package.

    Raises:
        ValueError: if there is no such recipe.
    """
    if name not in names():
        raise ValueError(
            f"`recipe` must be one of {names()}. Received: recipe={name!r}. "
            "Choose one of them."
        )
    return importlib.import_module(f"{__name__}.{name}").RECIPE
