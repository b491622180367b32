"""The import of the package is light, but sufficient to load any saved model."""

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_perceiver
from keras_perceiver import (
    Image,
    Lamb,
    Perceiver,
    PerceiverClassifier,
    models,
    training,
)

ROOT = Path(keras_perceiver.__file__).parent
PYPROJECT = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]


def _in_a_new_process(program, *arguments):
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def _files():
    return {path: ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}


def _module_name(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def _imported(nodes):
    """Yields the top-level name of every imported package."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


_NEW_MODULES = """
import json, sys
import keras
before = set(sys.modules)
import keras_perceiver
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_import_loads_keras_and_its_backend_only():
    new = _in_a_new_process(_NEW_MODULES)
    ours = {"keras_perceiver", "keras", "numpy", keras.backend.backend()}
    heavy = {name.split(".")[0] for name in new} - ours - sys.stdlib_module_names
    # Created by Cython for its own bookkeeping.
    assert {name for name in heavy if not name.startswith("_cython")} == set()
    # A saved model may contain objects of any registered class.
    registered = {
        _module_name(path)
        for path, tree in _files().items()
        if any(
            isinstance(node, ast.Attribute)
            and node.attr == "register_keras_serializable"
            for node in ast.walk(tree)
        )
    }
    assert len(registered) > 10
    assert registered <= set(new)


def test_names_that_are_imported_when_used():
    lazy = [name for names in keras_perceiver._LAZY.values() for name in names]
    assert set(lazy) < set(keras_perceiver.__all__) < set(dir(keras_perceiver))
    program = f"""
import json
import keras_perceiver as kp
names = {keras_perceiver.__all__!r}
print(json.dumps([getattr(kp, name).__name__ for name in names]))
from keras_perceiver import *
assert kp.tuning.PerceiverHyperModel is PerceiverHyperModel
print(json.dumps(dir(kp)))
"""
    assert "tuning" in _in_a_new_process(program)
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        _ = keras_perceiver.no_such_name


_LOAD = """
import json, sys
import keras, numpy as np
import keras_perceiver
model = keras.saving.load_model(sys.argv[1])
images = np.linspace(-1, 1, 128, dtype="float32").reshape(2, 8, 8, 1)
logits = keras.ops.convert_to_numpy(model(images)).tolist()
loss = model.evaluate(images, np.array([1, 2]), verbose=0, return_dict=True)["loss"]
names = [type(x).__name__ for x in (model, model.optimizer, model.loss)]
print(json.dumps([logits, float(loss), names]))
"""


@pytest.mark.fast_on("torch")
def test_compiled_file_is_loaded_in_a_new_process(tmp_path):
    encoder = Perceiver(
        Image((8, 8, 1), num_bands=2),
        num_latents=4,
        latent_dim=8,
        num_blocks=1,
        num_self_attends_per_block=1,
    )
    model = PerceiverClassifier(encoder, num_classes=3)
    loss = models.SmoothedCrossentropy(0.1)
    metrics = [models.Accuracy()]
    model.compile(training.TrackingOptimizer(Lamb(1e-3)), loss, metrics=metrics)
    images = np.linspace(-1, 1, 128, dtype="float32").reshape(2, 8, 8, 1)
    model.fit(images, np.array([1, 2]), verbose=0)
    model.save(tmp_path / "model.keras")
    logits, loss, names = _in_a_new_process(_LOAD, str(tmp_path / "model.keras"))
    np.testing.assert_allclose(
        logits, keras.ops.convert_to_numpy(model(images)), atol=1e-5
    )
    found = model.evaluate(images, np.array([1, 2]), verbose=0, return_dict=True)
    assert loss == pytest.approx(found["loss"], rel=1e-5)
    expected = ["PerceiverClassifier", "TrackingOptimizer", "SmoothedCrossentropy"]
    assert names == expected


def _declared(requirements):
    """Returns the normalized names of requirements, without those of this package."""
    names = {re.match(r"[\w-]+", text)[0] for text in requirements}
    return {name.lower().replace("_", "-") for name in names - {PYPROJECT["name"]}}


@pytest.mark.one_backend
def test_imported_packages_are_declared():
    extras = PYPROJECT["optional-dependencies"]
    declared = _declared(PYPROJECT["dependencies"])
    optional = _declared(text for texts in extras.values() for text in texts)
    distributions = importlib.metadata.packages_distributions()
    found = set()
    for path, tree in _files().items():
        top = set(_imported(tree.body))
        for name in set(_imported(ast.walk(tree))) - sys.stdlib_module_names:
            if name == PYPROJECT["name"]:
                continue
            # If it is not installed, assume that module and distribution have the same
            # name.
            names = _declared(distributions.get(name, [name]))
            found |= names
            at_top = f"{path} imports {name} at its top"
            assert names & (declared if name in top else declared | optional), at_top
    assert {"keras", "keras-tuner", "tensorflow-serving-api", "soundfile"} <= found


@pytest.mark.one_backend
def test_export_without_the_protocol_of_tf_serving(tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "tensorflow_serving" else find_spec(name),
    )
    with pytest.raises(ImportError, match=r"pip install tensorflow-serving-api"):
        keras_perceiver.export_for_serving(None, tmp_path)
