import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_perceiver import recipes
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
        from keras_perceiver import PerceiverClassifier

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
    assert options["labels"] == tuple(digits().class_names)
    assert json.loads(json.dumps(options["metrics"])) == metrics
    assert (run / "history.png").read_bytes().startswith(b"\x89PNG")
    # The progress bar is part of the promise.
    assert "Epoch 2/2" in capsys.readouterr().out


@pytest.mark.usefixtures("exported")
def test_options_have_an_effect(tmp_path):
    policies = []

    def recipe():
        seen = []
        little = _little(seen)
        model = little.model

        def recorded(num_classes):
            made = model(num_classes)
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
