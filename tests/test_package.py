"""The package as a whole: import directions, public names, docstrings."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_perceiver

ROOT = Path(keras_perceiver.__file__).parent

# Modules of serving that run in the process that exports, or in a separate process.
_IN_TENSORFLOW = {
    "check_saved_model",
    "encoded",
    "formats",
    "graph",
    "job",
    "requests",
    "warmup",
}

# Modules that every part may import.
_BASEMENT = {
    *("_checks", "_files", "_locks", "_matplotlib", "_names", "_overrides", "_runs"),
    *("_typing", "config"),
}

# Parts that each part may import, besides itself and the basement.
_ALLOWED = {
    "_checks": set(),
    "_files": set(),
    "_locks": set(),
    "_matplotlib": set(),
    "_names": set(),
    "_overrides": set(),
    "_runs": set(),
    "_typing": {"modalities"},
    "config": set(),
    "distribution": {"layers"},
    "layers": set(),
    "modalities": {"layers"},
    "models": {"layers", "modalities"},
    "convert": {"config", "layers", "modalities", "models"},
    "data": {"layers", "modalities"},
    "serving": {"layers", "modalities", "models", "data"},
    "training": {"distribution", "layers", "modalities", "models", "serving"},
    "tuning": {
        *("layers", "modalities", "models", "training", "data", "distribution"),
    },
    "visualization": {"layers", "modalities", "models"},
    "explorer": {"modalities", "models", "visualization"},
    "__main__": {"cli"},
    "cli": {
        *("data", "distribution", "explorer", "modalities", "models", "recipes"),
        *("serving", "training", "tuning"),
    },
    "recipes": {"layers", "modalities", "models", "serving", "training", "data"},
}


def _imports(path):
    """Yields (module, is_at_top_level) for every import of a file."""
    tree = ast.parse(path.read_text())
    top_level = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in top_level
        elif isinstance(node, ast.ImportFrom):
            yield node.module, id(node) in top_level


def _files():
    return [
        path
        for path in sorted(ROOT.rglob("*.py"))
        if path.parent != ROOT or path.stem != "__init__"
    ]


@pytest.mark.one_backend
@pytest.mark.parametrize("path", _files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_flow_one_way(path):
    part = path.relative_to(ROOT).parts[0].removesuffix(".py")
    allowed = _ALLOWED[part] | {part} | _BASEMENT
    for module, at_top_level in _imports(path):
        if module.startswith("keras_perceiver."):
            assert module.split(".")[1] in allowed, module
        root = module.split(".")[0]
        if root == "tensorflow" and at_top_level:
            is_in_tensorflow = part == "serving" and path.stem in _IN_TENSORFLOW
            assert part == "data" or is_in_tensorflow, "only data imports TensorFlow"
        if root in ("jax", "torch"):
            is_reader = path.stem == "files" and part == "convert"
            is_fast_path = part in ("layers", "distribution")
            assert is_fast_path or is_reader, "backends belong to fast paths"
        assert root not in ("tools", "tests", "notebooks")


# Files with more than 400 lines, and the reasons.
_LONG_FILES = {
    "modalities/base.py": "one class, the extension points of every modality",
    "config.py": "one class: overrides, their errors and their JSON belong together",
    "tuning/hyper_model.py": "one class, whose arguments take a page to document",
}


@pytest.mark.one_backend
def test_files_hold_one_concept():
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines())
        for path in ROOT.rglob("*.py")
    }
    assert {name for name, length in lengths.items() if length > 400} <= set(
        _LONG_FILES
    )


def test_public_names_are_documented_classes_and_functions():
    assert keras_perceiver.__all__ == sorted(keras_perceiver.__all__)
    for name in keras_perceiver.__all__:
        public = getattr(keras_perceiver, name)
        sections = {"Reference:", "Args:", "Returns:", "Raises:", "Example:"}
        is_class = inspect.isclass(public)
        if is_class and issubclass(public, keras.optimizers.Optimizer):
            sections.remove("Returns:")
        if is_class and public.__init__ is object.__init__:
            sections.remove("Args:")
        for section in sections:
            assert section in public.__doc__, (name, section)
        if not is_class or public.__init__ is object.__init__:
            continue
        for parameter in list(inspect.signature(public.__init__).parameters.values())[
            1:
        ]:
            assert f"    {parameter}: ".split("=")[0] in public.__doc__ or (
                f"{parameter.name}: " in public.__doc__
                or f"**{parameter.name}: " in public.__doc__
            ), (name, parameter.name)


def _public():
    """Yields (name, object) of all public classes and functions."""
    parts = {m.name for m in pkgutil.iter_modules(keras_perceiver.__path__)}
    parts = [part for part in sorted(parts) if part[0] != "_" and part != "cli"]
    for part in (*parts, "layers.attention", "serving.client"):
        module = importlib.import_module(f"keras_perceiver.{part}")
        home = "keras_perceiver" if hasattr(module, "__all__") else module.__name__
        for name in getattr(module, "__all__", vars(module)):
            public = getattr(module, name)
            is_own = getattr(public, "__module__", "").startswith(home)
            if name[0] != "_" and is_own and callable(public):
                yield f"{part}.{name}", public


@pytest.mark.one_backend
def test_public_functions_and_constructors_have_annotations():
    missing = set()
    for name, public in _public():
        function = vars(public).get("__init__") if inspect.isclass(public) else public
        if function is None:
            continue  # the parent's constructor
        signature = inspect.signature(function)
        for parameter in signature.parameters.values():
            if parameter.annotation is parameter.empty and parameter.name != "self":
                missing.add(f"{name}: {parameter.name}")
        if signature.return_annotation is signature.empty:
            missing.add(f"{name}: return")
    assert missing == set()


def _modules():
    for module in pkgutil.walk_packages([str(ROOT)], "keras_perceiver."):
        # Scripts that do not import the package.
        if not module.name.endswith(("check_saved_model", "check_file")):
            yield module.name


@pytest.mark.parametrize("name", list(_modules()))
@pytest.mark.fast_on("torch")
def test_docstring_examples_run(name):
    __import__(name)
    names = {n: getattr(keras_perceiver, n) for n in keras_perceiver.__all__}
    result = doctest.testmod(
        sys.modules[name], extraglobs={**names, "keras": keras, "np": np}
    )
    assert result.failed == 0
