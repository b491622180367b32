"""Recipes: one module per training run, whose docstring is its card."""

from __future__ import annotations

import ast
import importlib.util
import pkgutil
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_perceiver._checks import check_choice
from keras_perceiver._files import read_json

if TYPE_CHECKING:
    from keras_perceiver._typing import PathLike
    from keras_perceiver.training import Recipe


def names() -> list[str]:
    """Returns the names of all recipes, sorted."""
    modules = pkgutil.iter_modules(__path__)
    return sorted(m.name for m in modules if not m.name.startswith("_"))


def get(name: str) -> Recipe:
    """Returns the `Recipe` of a module of this package.

    Raises:
        ValueError: if there is no such recipe. The error suggests the nearest name.
    """
    check_name(name)
    return importlib.import_module(f"{__name__}.{name}").RECIPE


def check_name(name: str) -> None:
    """Raises `ValueError` unless a recipe has this name, without importing Keras."""
    check_choice("`recipe`", name, names())


def load(path: PathLike) -> Recipe:
    """Returns the `Recipe` of a user's own file.

    The file is executed with all permissions of the user, so do not load files that you
    have not read. It must define `RECIPE`, a `keras_perceiver.training.Recipe`. Its
    folder is added to `sys.path`, so that processes that this one starts, such as those
    of exports, find its classes.

    Args:
        path: Path of a `.py` file.

    Raises:
        ValueError: if the file raises an error, if it defines no recipe, or if it has
            the name of an imported module or of another recipe.
    """
    path = Path(path).resolve()
    name = path.stem
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) != str(path):
        raise ValueError(
            "A recipe file must not have the name of another module. Received: "
            f"{str(path)!r}. Rename it."
        )
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec: Any = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(
            f"A recipe file must run without an error. Received: {_where(path, error)}. "
            "Correct the file."
        ) from error
    return _checked(module, path)


def _where(path, error):
    """Returns the file, line and message of an error on one line."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        line = error.lineno
    else:
        frames = traceback.extract_tb(error.__traceback__)
        line = [f.lineno for f in frames if f.filename == str(path)][-1]
    return f"{path}, line {line}: {type(error).__name__}: {error}"


def _checked(module, path):
    from keras_perceiver.training import Recipe

    recipe = getattr(module, "RECIPE", None)
    if not isinstance(recipe, Recipe):
        raise ValueError(
            "A recipe file must define RECIPE, a `keras_perceiver.training.Recipe`. "
            f"Received: {path} with RECIPE={recipe!r}. Define it, as the files in "
            f"{Path(__file__).parent} do."
        )
    if recipe.name in names():
        raise ValueError(
            "The name of a recipe must not be that of another. Received: "
            f"name={recipe.name!r} in {path}. Rename it."
        )
    return recipe


def card(name: str) -> str:
    """Returns the card of a recipe, its docstring, without importing Keras."""
    check_name(name)
    text = Path(__file__).with_name(f"{name}.py").read_text()
    return ast.get_docstring(ast.parse(text)) or ""


def of_run(folder: PathLike) -> Recipe:
    """Returns the `Recipe` of a finished run, with the overrides of that run.

    Args:
        folder: Path of a folder with the `metrics.json` of the run.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the recipe is not one of this package.
    """
    return get(name_of_run(folder)).replace(_metrics(folder).get("overrides", {}))


def name_of_run(folder: PathLike) -> str:
    """Returns the name of the recipe of a finished run, without importing Keras."""
    name = _metrics(folder)["recipe"]
    if name not in names():
        # Its file contains code, which is only executed if the user names the file.
        raise ValueError(
            "The recipe of a run must be one of the package, or be named. Received: "
            f"{str(folder)!r}, a run of the recipe {name!r}. Pass the file of the recipe "
            "with --recipe."
        )
    return name


def _metrics(folder):
    path = Path(folder) / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(
            "The recipe of a model is in the metrics.json next to it. Received: no "
            f"{str(path)!r}. Leave the model in the folder of its run, or name the "
            "recipe."
        )
    metrics = read_json(path)
    if not isinstance(metrics.get("recipe"), str):
        raise ValueError(
            f"The metrics.json of a run must contain its recipe. Received: {str(path)!r}, "
            "which does not. Name the recipe with --recipe."
        )
    return metrics
