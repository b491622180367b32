"""Recipes: one module per run. The docstring of each is its card."""

import importlib
import json
import pkgutil
from pathlib import Path


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


def of_run(folder):
    """Returns the `Recipe` of a finished run, with the overrides of that run.

    Args:
        folder: Path of a folder with the `metrics.json` of the run.

    Raises:
        FileNotFoundError: if there is none.
    """
    path = Path(folder) / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(
            "The recipe of a model is in the metrics.json beside it. Received: no "
            f"{str(path)!r}. Leave the model in the folder of its run, or name the "
            "recipe."
        )
    metrics = json.loads(path.read_text())
    return get(metrics["recipe"]).replace(metrics.get("overrides", {}))
