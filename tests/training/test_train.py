import csv
import dataclasses
import functools
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_perceiver import PerceiverClassifier, recipes
from keras_perceiver.data import digits
from keras_perceiver.training import Recipe, train

TOOL = Path(__file__).parents[2] / "tools" / "train.py"


def _little(seen=None):
    """The digits recipe with a model of one block, on an eighth of the data."""
    full = recipes.get("digits")

    def data(batch_size, seed):
        splits = digits(batch_size, seed, augment=False)
        num_steps = 160 // batch_size
        return splits._replace(
            train=splits.train.take(num_steps),
            epoch=lambda number, num_done=0: (
                splits.epoch(number).take(num_steps).skip(num_done)
            ),
        )

    def model(num_classes):
        model = PerceiverClassifier.from_preset(
            "digits", num_classes, num_blocks=1, num_self_attends_per_block=1
        )
        if seen is not None:
            seen.append(model)
        return model

    return Recipe("digits", data, model, full.optimizer, 2, 32, label_smoothing=0.2)


@pytest.fixture
def exported(monkeypatch):
    """The calls of the export, which has tests of its own and costs most of a run."""
    calls = []
    module = sys.modules["keras_perceiver.training.train"]
    monkeypatch.setattr(
        module,
        "export_for_serving",
        lambda *call, **options: calls.append((call, options)) or call[1] / "1",
    )
    return calls


def test_writes_everything_that_it_says(tmp_path, capsys, exported):
    seen = []
    run, exports = tmp_path / "run", tmp_path / "exports"
    result = train(_little(seen), run, exports)
    assert sorted(p.name for p in run.iterdir()) == [
        "history.csv",
        "history.png",
        "logs",
        "metrics.json",
        "model.keras",
    ]
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["backend"] == keras.backend.backend()
    assert metrics["parameters"] == seen[0].count_params()
    assert (metrics["epochs"], metrics["batch_size"], metrics["seed"]) == (2, 32, 0)
    assert metrics["train_seconds"] > 0
    assert metrics["examples_per_second"] == pytest.approx(
        320 / metrics["train_seconds"], rel=0.02
    )
    assert metrics["versions"]["keras"] == keras.__version__
    model = keras.saving.load_model(run / "model.keras")
    assert model.loss.label_smoothing == seen[0].loss.label_smoothing == 0.2
    test = model.evaluate(digits().test, return_dict=True, verbose=0)
    assert metrics["test_accuracy"] == pytest.approx(test["accuracy"], abs=1e-6)
    assert metrics["test_loss"] == pytest.approx(test["loss"], rel=1e-5)
    assert result["export"] == exports / "1"
    ((call, options),) = exported
    assert call == (seen[0], exports)
    assert model.class_names == tuple(digits().class_names)
    assert json.loads(json.dumps(options["metrics"])) == metrics
    assert (run / "history.png").read_bytes().startswith(b"\x89PNG")
    _check_logs(run)
    # The progress bar is part of the promise.
    assert "Epoch 2/2" in capsys.readouterr().out


def _check_logs(run):
    """The CSV and TensorBoard's events say the same of both epochs."""
    import tensorflow as tf
    from tensorflow.core.util.event_pb2 import Event

    with (run / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    # The learning rate ends at zero.
    measured = [{**row, "learning_rate": 1} for row in rows]
    assert all(float(value) > 0 for row in measured for value in row.values())
    logged = {}
    for part in ("train", "validation"):
        (path,) = (run / "logs" / part).iterdir()
        for record in tf.data.TFRecordDataset(str(path)):
            event = Event.FromString(record.numpy())
            for value in event.summary.value:
                if not value.tag.startswith("epoch_"):
                    continue  # Keras' own, by steps
                name = value.tag.removeprefix("epoch_")
                name = f"val_{name}" if part == "validation" else name
                logged[name, event.step] = float(tf.make_ndarray(value.tensor))
    names = {"learning_rate", "gradient_norm", "examples_per_second", "val_loss"}
    assert names < rows[0].keys()
    assert logged.keys() == {(name, i) for name in rows[0] for i in (0, 1)} - {
        ("epoch", 0),
        ("epoch", 1),
    }
    for (name, i), value in logged.items():
        assert value == pytest.approx(float(rows[i][name]), rel=1e-5)


@pytest.mark.usefixtures("exported")
@pytest.mark.one_backend
def test_options_have_an_effect(tmp_path, exported):
    policies = []

    def recipe():
        seen = []
        little = _little(seen)
        model = little.model

        def recorded(num_classes):
            made = model(num_classes)
            # For a few steps, a compiler takes longer than it saves.
            made.compile = functools.partial(made.compile, run_eagerly=True)
            policies.append(made.encoder.iterative_attention.dtype_policy.name)
            return made

        return seen, Recipe("digits", little.data, recorded, little.optimizer, 1, 32)

    def weights(name, **options):
        seen, little = recipe()
        result = train(little, tmp_path / name, tmp_path / "exports", **options)
        return result, seen[0].get_weights()

    first, a = weights("a")
    _, b = weights("b")
    _, c = weights("c", seed=1)
    other, _ = weights("d", precision="mixed_bfloat16", epochs=2, batch_size=80)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)
    assert any((x != y).any() for x, y in zip(a, c, strict=True))
    assert policies == ["float32"] * 3 + ["mixed_bfloat16"]
    assert (first["epochs"], first["batch_size"]) == (1, 32)
    assert (other["epochs"], other["batch_size"]) == (2, 80)
    assert keras.config.dtype_policy().name == "float32"  # left as it was


def _fails_before_training(error, message, tmp_path, **options):
    def no_data(*_):
        raise AssertionError("The check came too late.")

    recipe = Recipe("digits", no_data, no_data, no_data, epochs=1, batch_size=32)
    options = {
        "run_folder": tmp_path / "run",
        "export_folder": tmp_path / "exports",
        **options,
    }
    with pytest.raises(error, match=message):
        train(recipe, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "`epochs` must be a positive integer"),
        ({"batch_size": -1}, "`batch_size` must be a positive integer"),
        ({"accumulation_steps": 0}, "`accumulation_steps` must be a positive integer"),
        (
            {"accumulation_steps": 3},
            "must be divisible by `accumulation_steps`.*32.*=3.*a multiple of 3",
        ),
        ({"precision": "float8"}, "`precision` must be one of.*float8.*Choose"),
    ],
)
def test_bad_options(options, message, tmp_path):
    _fails_before_training(ValueError, message, tmp_path, **options)


def test_folders_are_checked_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    inside = tmp_path / "file" / "run"
    for name, shown in (("run_folder", "run_folder"), ("export_folder", "folder")):
        _fails_before_training(
            PermissionError,
            f"`{shown}` must be a folder that can be",
            tmp_path,
            **{name: inside},
        )
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "model.keras").write_text("precious")
    _fails_before_training(
        FileExistsError,
        "never overwritten.*Choose another",
        tmp_path,
        run_folder=tmp_path / "done",
    )
    assert (tmp_path / "done" / "model.keras").read_text() == "precious"


def test_batch_larger_than_the_data(tmp_path):
    with pytest.raises(
        ValueError, match="must not exceed the number of training examples"
    ):
        train(_little(), tmp_path / "run", tmp_path / "exports", batch_size=2000)


@pytest.mark.one_backend
def test_recipe_that_reads_a_folder(tmp_path, exported):
    from keras_perceiver.data import PointFiles, folder_splits
    from keras_perceiver.modalities import PointCloud
    from keras_perceiver.recipes._small import folder_recipe
    from tests.data.files import write_points

    def make(name="furniture"):
        return folder_recipe(
            name,
            lambda size, seed, folder: folder_splits(
                folder, PointFiles(20), size, seed
            ),
            lambda: PointFiles(20),
            lambda: PointCloud(20, num_bands=2, max_resolution=4),
            epochs=1,
            batch_size=4,
            num_blocks=1,
        )

    for part in ("train", "test"):
        for name in ("chair", "lamp", "sofa"):
            for i in range(4):
                write_points(tmp_path / "data" / part / name / f"{i}.npy", seed=i)
    folders = {"run_folder": tmp_path / "run", "export_folder": tmp_path / "exports"}
    with pytest.raises(ValueError, match="needs a `data_folder`.*--data"):
        train(make(), **folders)
    with pytest.raises(ValueError, match="reads no `data_folder`.*Leave it out"):
        train(_little(), **folders, data_folder=tmp_path / "data")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train(make(), **folders, data_folder=tmp_path / "nowhere")
    result = train(make(), **folders, data_folder=tmp_path / "data")
    assert result["class_names"] == ("chair", "lamp", "sofa")
    assert exported[0][0][0].num_classes == 3


class _ReachedError(Exception):
    """Training would begin now."""


@pytest.fixture
def reach(monkeypatch, tmp_path):
    """Returns what a recipe makes of everything, up to the first step."""
    module = sys.modules["keras_perceiver.training.train"]
    made = {}

    def state(checkpoints, configuration, save_every, steps_per_epoch, early_stop):
        made["configuration"] = configuration
        return None

    def fit(model, splits, *_):
        made["batch"] = next(splits.epochs(0, 1).as_numpy_iterator())
        raise _ReachedError

    monkeypatch.setattr(module, "SaveState", state)
    monkeypatch.setattr(module, "_fit", fit)

    def run(recipe, **options):
        keras.utils.clear_session(free_memory=False)
        with pytest.raises(_ReachedError):
            train(recipe, tmp_path / "run", tmp_path / "exports", **options)
        inputs, labels = made["batch"]
        return made["configuration"], (inputs.sum(), inputs.shape, labels.sum())

    return run


# Of every field, other settings, and where they arrive. What is in a `made` for smoke
# tests, and the reader of labelled files, have tests of their own beside this one.
_little_digits = _little()
CHANGES = {
    "name": ({"name": "other"}, {"recipe"}),
    "data": ({"data": lambda size, seed: digits(size, seed + 1)}, {"batch"}),
    "model": (
        {"model": lambda num: _little_digits.model(num + 1)},
        {"model.config.num_classes"},
    ),
    "optimizer": (
        {"optimizer": lambda num_steps: keras.optimizers.SGD(0.1)},
        {"optimizer.config.inner_optimizer.class_name"},
    ),
    "epochs": ({"epochs": 3}, {"epochs"}),
    "batch_size": ({"batch_size": 16}, {"batch_size", "batch"}),
    "label_smoothing": ({"label_smoothing": 0.1}, {"loss.config.label_smoothing"}),
    "reads_folder": (
        {
            "reads_folder": True,
            "default_folder": "7",
            "data": lambda size, seed, folder: digits(size, int(folder.name)),
        },
        {"batch"},
    ),
    "is_multi_label": ({"is_multi_label": True}, {"loss.class_name"}),
    "ema_momentum": ({"ema_momentum": 0.9}, {"optimizer.config.ema_momentum"}),
    "accumulation_steps": (
        {"accumulation_steps": 2},
        {
            "batch",
            "optimizer.config.inner_optimizer.config.gradient_accumulation_steps",
        },
    ),
    "patience": ({"patience": 5}, {"patience"}),
}


@pytest.mark.one_backend
def test_every_field_of_a_recipe_has_an_effect(reach):
    base = dataclasses.replace(_little(), default_folder="9")
    configuration, batch = reach(base)
    assert (configuration, batch) == reach(base)  # and nothing else has one
    for name, (change, expected) in CHANGES.items():
        new_configuration, new_batch = reach(dataclasses.replace(base, **change))
        names = configuration.keys() | new_configuration.keys()
        changed = {n for n in names if configuration.get(n) != new_configuration.get(n)}
        changed |= {"batch"} if new_batch != batch else set()
        assert expected <= changed, name
    # The folder that the user names goes before the default.
    other = dataclasses.replace(base, **CHANGES["reads_folder"][0])
    assert reach(other)[1] == reach(other, data_folder="7")[1]
    assert reach(other)[1] != reach(other, data_folder="8")[1]
    # Mock data are for smoke tests, as few as they need.
    mock = dataclasses.replace(base, smoke=lambda size, seed: digits(size, seed + 1))
    assert reach(mock) == (configuration, batch)
    smoke, small = reach(mock, smoke=True)
    assert (smoke["epochs"], smoke["batch_size"], smoke["steps_per_epoch"]) == (1, 2, 3)
    assert small[1] == (2, 8, 8, 1)
    assert reach(base, smoke=True)[1] != small
    assert reach(mock, smoke=True, accumulation_steps=3)[0]["batch_size"] == 6
    # `tools/evaluate.py` is what reads with `files`.
    fields = {field.name for field in dataclasses.fields(Recipe)}
    assert fields == CHANGES.keys() | {"default_folder", "smoke", "files"}


@pytest.mark.one_backend
def test_smoke_needs_mock_data(reach):
    recipe = dataclasses.replace(_little(), reads_folder=True)
    with pytest.raises(ValueError, match="smoke test needs mock data.*'digits'"):
        train(recipe, "run", "exports", smoke=True)
    with pytest.raises(ValueError, match="smoke test reads no `data_folder`"):
        train(_little(), "run", "exports", smoke=True, data_folder="data")


@pytest.mark.one_backend
@pytest.mark.usefixtures("exported")
def test_run_that_gets_no_better_ends_and_keeps_the_best(tmp_path, monkeypatch):
    seen = []
    recipe = dataclasses.replace(
        _little(seen), optimizer=lambda _: keras.optimizers.SGD(0.0), epochs=9
    )
    module = sys.modules["keras_perceiver.training.train"]
    folders = tmp_path / "run", tmp_path / "exports"
    with monkeypatch.context() as patch:

        def crash(*_):
            raise RuntimeError("crashed")

        patch.setattr(module, "_test", crash)
        with pytest.raises(RuntimeError, match="crashed"):
            train(recipe, *folders, patience=1, save_every=5)
    # All was over but the test: that is all that a resumed run does.
    monkeypatch.setattr(PerceiverClassifier, "fit", crash)
    result = train(recipe, *folders, patience=1, save_every=5, resume=True)
    assert result["best_epoch"] == 1
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 1 + 2
    for first, second in zip(*(m.get_weights() for m in seen), strict=True):
        np.testing.assert_array_equal(first, second)


def test_unknown_recipe():
    with pytest.raises(
        ValueError, match=r"`recipe` must be one of \[.*'digits'.*\].*Choose"
    ):
        recipes.get("nothing")


def test_every_recipe_has_its_name_and_its_card():
    for name in recipes.names():
        assert recipes.get(name).name == name
        module = sys.modules[f"keras_perceiver.recipes.{name}"]
        assert "Command:" in module.__doc__
        assert "Score:" in module.__doc__


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], r"^error: `recipe` must be one of \[.*'digits'.*\]"),
        (["digits", "--epochs", "0"], "^error: `epochs` must be a positive integer"),
        (["digits", "--resume"], "^error: There must be a run with checkpoints"),
        (["digits", "--save-every", "0"], "^error: `save_every` must be a positive"),
        (["digits", "--keep", "0"], "^error: .*`keep` must be a positive integer"),
        (
            ["digits", "--run-folder", "/dev/null/run"],
            "^error: `run_folder` must be a folder that can be written",
        ),
    ],
)
def test_tool_refuses_without_a_traceback(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        runpy.run_path(str(TOOL))["main"](arguments)


@pytest.mark.one_backend
def test_tool_resumes_the_newest_run_that_did_not_finish(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (2, 9, 10, 11):  # the last one without a checkpoint
        folder = tmp_path / "runs" / "digits" / str(number) / "checkpoints"
        folder.mkdir(parents=True)
        if number != 11:
            (folder / "step-0000000001.checkpoint").write_text("")
    run_folder = runpy.run_path(str(TOOL))["_run_folder"]
    assert run_folder(recipes.get("digits"), resume=True) == Path("runs/digits/10")
    assert run_folder(recipes.get("digits"), resume=False) == Path("runs/digits/12")


def test_tool_refuses_an_unknown_backend():
    result = subprocess.run(
        [sys.executable, TOOL, "digits"],
        env={**os.environ, "KERAS_BACKEND": "theano"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("error: KERAS_BACKEND must be one of")
    assert len(result.stderr.splitlines()) == 1
