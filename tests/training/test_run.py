import contextlib
import csv
import dataclasses
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_perceiver import recipes
from keras_perceiver.cli import models
from keras_perceiver.config import Config
from keras_perceiver.data import digits
from keras_perceiver.serving.card import weights_hash
from keras_perceiver.training import Run, train
from tests.holder import holding
from tests.training.runs import (
    EagerClassifier,
    check_equal,
    crash,
    finished,
    limited,
    little_recipe,
    sgd,
)


@pytest.mark.fast_on("torch")
def test_writes_all_documented_files(tmp_path, capsys):
    recipe = little_recipe().replace({"model.num_latents": 6})
    run = finished(recipe, tmp_path / "run")
    folder = tmp_path / "run"
    assert sorted(p.name for p in folder.iterdir()) == [
        ".lock",  # until the export
        "checkpoints",
        "history.csv",
        "history.png",
        "logs",
        "metrics.json",
        "model.keras",
    ]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == json.loads(json.dumps(run.metrics))
    assert metrics["overrides"] == {"model.num_latents": 6}
    assert metrics["backend"] == keras.backend.backend()
    assert metrics["parameters"] == run.model.count_params()
    assert (metrics["epochs"], metrics["batch_size"], metrics["seed"]) == (2, 32, 0)
    assert metrics["train_seconds"] > 0
    assert metrics["examples_per_second"] == pytest.approx(
        320 / metrics["train_seconds"], rel=0.02
    )
    assert metrics["versions"]["keras"] == keras.__version__
    assert metrics["weights_sha256"] == weights_hash(run.model)
    model = keras.saving.load_model(folder / "model.keras")
    assert model.loss.label_smoothing == run.model.loss.label_smoothing == 0.2
    assert model.encoder.latent_array.num_latents == 6
    test = model.evaluate(digits().test, return_dict=True, verbose=0)
    assert metrics["test_accuracy"] == pytest.approx(test["accuracy"], abs=1e-6)
    assert metrics["test_loss"] == pytest.approx(test["loss"], rel=1e-5)
    assert (folder / "history.png").read_bytes().startswith(b"\x89PNG")
    _check_logs(folder)
    # The progress bar is part of the interface.
    assert "Epoch 2/2" in capsys.readouterr().out


def _check_logs(run):
    """Asserts that the CSV and the TensorBoard events have the same values."""
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


@pytest.mark.one_backend
@pytest.mark.slow
def test_train_calls_all_stages(tmp_path, capsys):
    recipe = little_recipe(task=EagerClassifier, epochs=1)
    result = train(recipe, tmp_path / "run", tmp_path / "exports")
    assert result["model"] == tmp_path / "run" / "model.keras"
    assert result["export"] == tmp_path / "exports" / "1"
    assert (result["export"] / "saved_model.pb").is_file()
    (card,) = result["export"].rglob("model_card.json")
    assert json.loads(card.read_text())["labels"] == list(digits().class_names)
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert not (tmp_path / "run" / ".lock").exists()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert result["test_accuracy"] == metrics["test_accuracy"]
    # Resuming a complete run succeeds and changes nothing.
    again = train(recipe, tmp_path / "run", tmp_path / "exports", resume=True)
    assert again == json.loads(json.dumps(result, default=str)) | {
        "model": result["model"],
        "export": result["export"],
    }
    assert [path.name for path in (tmp_path / "exports").glob("[0-9]*")] == ["1"]
    # The metrics are not used for other weights.
    model = keras.saving.load_model(result["model"], compile=False)
    assert models.metrics(result["model"], model) == metrics
    model.set_weights([weight / 2 for weight in model.get_weights()])
    assert models.metrics(result["model"], model) == {}
    assert "metrics.json has the metrics of other weights" in capsys.readouterr().err


@pytest.mark.one_backend
@pytest.mark.slow
def test_export_is_not_repeated_after_a_kill(tmp_path, monkeypatch):
    recipe = little_recipe(task=EagerClassifier, epochs=1)
    first = Run(recipe, tmp_path)
    first.prepare()
    first.fit()
    first.score()
    first.save()
    version = tmp_path / "export" / "1"
    version.mkdir(parents=True)
    weights = {"sha256": first.metrics["weights_sha256"], "stored_as": "float32"}
    (version / "model_card.json").write_text(json.dumps({"weights": weights}))
    result = train(recipe, tmp_path, resume=True)
    assert result["export"] == version
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.one_backend
def test_run_folder_is_locked(tmp_path):
    with holding(tmp_path / ".lock") as process:
        for resume in (False, True):
            match = rf"run folder '{tmp_path}' must be used.*process {process.pid} on "
            with pytest.raises(BlockingIOError, match=match):
                Run(little_recipe(), tmp_path, resume=resume)
    run = Run(little_recipe(), tmp_path)
    with pytest.raises(RuntimeError, match="Call `prepare` next"):
        run.fit()
    assert (tmp_path / ".lock").exists()  # a wrong order does not end a run
    run = Run(little_recipe(), tmp_path)  # like a cell that is run again
    run.recipe = dataclasses.replace(run.recipe, optimizer=sgd("fast"))
    with pytest.raises(ValueError, match="must be a number"):
        run.prepare()
    del run
    gc.collect()
    assert not (tmp_path / ".lock").exists()


@pytest.mark.one_backend
def test_full_disk_does_not_lose_a_run(tmp_path, monkeypatch):
    """The history is written later, the error names the file, and the run resumes."""
    recipe = little_recipe(task=EagerClassifier)
    run = Run(recipe, tmp_path / "run")
    run.prepare()
    disk = contextlib.ExitStack()
    fill = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: disk.enter_context(limited(10))
    )
    free = keras.callbacks.LambdaCallback(on_train_end=lambda logs: disk.close())
    with disk, pytest.warns(UserWarning, match="The run continues") as warned:
        run.fit([fill, free], verbose=0)
    texts = " ".join(str(warning.message) for warning in warned)
    assert "history.csv' could not be written: File too large. Make room" in texts
    assert "run/logs is no longer written: " in texts
    expected = run.model.get_weights()
    run.score()
    match = (
        "model.keras' could not be written: File too large. Make room and resume: .*10"
    )
    with pytest.raises(OSError, match=match), limited(10):
        run.save()
    assert not list((tmp_path / "run").glob("*.keras"))
    resumed = Run(recipe, tmp_path / "run", resume=True)
    resumed.prepare()
    resumed.fit([keras.callbacks.LambdaCallback(on_train_begin=lambda logs: crash())])
    resumed.score()
    resumed.save()
    check_equal(resumed.model.get_weights(), expected)
    lines = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert len(lines) == 1 + 2


@pytest.mark.one_backend
def test_stages_have_an_order(tmp_path):
    run = Run(little_recipe(), tmp_path / "run", tmp_path / "exports")
    with pytest.raises(RuntimeError, match="Received: `fit`. Call `prepare` next"):
        run.fit()
    run.prepare()
    assert run.model.count_params() == 45_872
    with pytest.raises(RuntimeError, match="Received: `score`. Call `fit` next"):
        run.score()
    with pytest.raises(RuntimeError, match="Received: `prepare`. Call `fit` next"):
        run.prepare()


@pytest.mark.slow
@pytest.mark.one_backend
def test_options_have_an_effect(tmp_path):
    recipe = little_recipe(task=EagerClassifier, epochs=1)

    def weights(name, **options):
        run = finished(recipe, tmp_path / name, **options)
        return run.model.get_weights()

    a, b, c = weights("a"), weights("b"), weights("c", seed=1)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)
    assert any((x != y).any() for x, y in zip(a, c, strict=True))


def _fails_before_training(error, message, tmp_path, **options):
    def no_data(batch_size, seed):
        raise AssertionError("The check came too late.")

    options = {
        "run_folder": tmp_path / "run",
        "export_folder": tmp_path / "exports",
        **options,
    }
    with pytest.raises(error, match=message):
        train(little_recipe(data=no_data), **options)


@pytest.mark.one_backend
@pytest.mark.parametrize("name", ["save_every", "keep"])
def test_bad_options(name, tmp_path):
    message = f"`{name}` must be a positive integer"
    _fails_before_training(ValueError, message, tmp_path, **{name: 0})


@pytest.mark.one_backend
def test_folders_are_checked_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    inside = tmp_path / "file" / "run"
    for name in ("run_folder", "export_folder"):
        message = f"`{name}` must be a writable folder"
        _fails_before_training(PermissionError, message, tmp_path, **{name: inside})
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "model.keras").write_text("precious")
    _fails_before_training(
        FileExistsError,
        "never overwritten.*Choose another",
        tmp_path,
        run_folder=tmp_path / "done",
    )
    assert (tmp_path / "done" / "model.keras").read_text() == "precious"


@pytest.mark.one_backend
def test_batch_larger_than_the_data(tmp_path):
    recipe = little_recipe(batch_size=2000)
    with pytest.raises(ValueError, match="not exceed the number of training examples"):
        train(recipe, tmp_path / "run", tmp_path / "exports")


@pytest.mark.one_backend
@pytest.mark.slow
def test_recipe_that_reads_a_folder(tmp_path):
    from keras_perceiver.data import folder_splits
    from keras_perceiver.modalities import PointCloud, PointCloudPreprocessor
    from keras_perceiver.recipes._small import folder_recipe
    from tests.data.files import write_points

    recipe = folder_recipe(
        "furniture",
        Config(folder_splits),
        Config(PointCloudPreprocessor, num_points=20),
        Config(PointCloud, num_points=20, num_bands=2, max_resolution=4),
        epochs=1,
        batch_size=4,
        num_blocks=1,
    )
    for part in ("train", "test"):
        for name in ("chair", "lamp", "sofa"):
            for i in range(4):
                write_points(tmp_path / "data" / part / name / f"{i}.npy", seed=i)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        finished(recipe, tmp_path / "run", data_folder=tmp_path / "nowhere")
    run = finished(recipe, tmp_path / "run", data_folder=tmp_path / "data")
    assert run.metrics["class_names"] == ("chair", "lamp", "sofa")
    assert run.model.num_classes == 3
    assert run.model.preprocessor.num_points == 20


@pytest.mark.one_backend
def test_run_without_improvement_stops_with_the_best_weights(tmp_path):
    recipe = little_recipe(optimizer=sgd(0.0), schedule=None, epochs=9, patience=1)
    folders = tmp_path / "run", tmp_path / "exports"
    first = Run(recipe, *folders, save_every=5)
    first.prepare()
    first.fit()
    # Only the test was missing, so that a resumed run does nothing else.
    second = Run(recipe, *folders, save_every=5, resume=True)
    second.prepare()
    second.fit([keras.callbacks.LambdaCallback(on_train_begin=lambda logs: crash())])
    second.score()
    second.save()
    assert second.metrics["best_epoch"] == 1
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 1 + 2
    check_equal(second.model.get_weights(), first.model.get_weights())


@pytest.mark.one_backend
def test_needs_neither_matplotlib_nor_tensorboard(tmp_path):
    program = f"""
import sys
for name in ("matplotlib", "tensorboard"):
    sys.modules[name] = None  # importing it fails
from pathlib import Path
from tests.holder import holding
from tests.training.runs import EagerClassifier, finished, little_recipe
recipe = little_recipe(task=EagerClassifier, epochs=1)
run = finished(recipe, Path({str(tmp_path / "run")!r}))
"""
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(root)},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "matplotlib is not installed: " in result.stdout
    assert "history.png is not written." in result.stdout
    assert "tensorboard is not installed: " in result.stdout
    names = {path.name for path in (tmp_path / "run").iterdir()} - {".lock"}
    assert names == {"model.keras", "metrics.json", "history.csv", "checkpoints"}


def test_every_recipe_has_its_name_and_its_card():
    for name in recipes.names():
        assert recipes.get(name).name == name
        module = sys.modules[f"keras_perceiver.recipes.{name}"]
        assert "Command:" in module.__doc__
        assert "Score:" in module.__doc__
