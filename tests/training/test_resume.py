import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_perceiver.data import digits
from keras_perceiver.training import (
    NonFiniteLossError,
    Recipe,
    TrainingInterruptedError,
    train,
)
from keras_perceiver.training import resume as module
from keras_perceiver.training.checkpoints import Checkpoints

STEPS_PER_EPOCH, EPOCHS = 5, 3


@pytest.fixture(autouse=True)
def _no_export(monkeypatch):
    """The export has tests of its own and costs most of a run."""
    monkeypatch.setattr(
        sys.modules["keras_perceiver.training.train"],
        "export_for_serving",
        lambda *call, **options: call[1],
    )


def _recipe(seen=None, learning_rate=1e-2, **settings):
    """A small model with all kinds of randomness and of state.

    Order, changes, dropout; half of an update, averaged weights, best weights.
    """

    def data(batch_size, seed):
        splits = digits(batch_size, seed)
        return splits._replace(
            train=splits.train.take(STEPS_PER_EPOCH),
            epoch=lambda number, num_done=0: (
                splits.epoch(number).take(STEPS_PER_EPOCH).skip(num_done)
            ),
        )

    def model(num_classes):
        from keras_perceiver import PerceiverClassifier

        settings_now = {
            "num_latents": 8,
            "latent_dim": 16,
            "num_blocks": 1,
            "num_self_attends_per_block": 1,
            "num_self_attend_heads": 2,
            "dropout": 0.2,
            "element_dropout": 0.2,
            **settings,
        }
        model = PerceiverClassifier.from_preset("digits", num_classes, **settings_now)
        if seen is not None:
            seen.append(model)
        return model

    return Recipe(
        "digits",
        data,
        model,
        lambda num_steps: keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(learning_rate, num_steps)
        ),
        EPOCHS,
        batch_size=32,
        accumulation_steps=2,
        ema_momentum=0.5,
        patience=EPOCHS,
    )


def _run(folder, **options):
    """Returns the weights and the optimizer's state, and the metrics of a whole run."""
    keras.utils.clear_session(free_memory=False)
    seen = []
    recipe = options.pop("recipe", None) or _recipe(seen)
    result = train(recipe, folder, folder / "exports", save_every=2, **options)
    variables = (*seen[0].weights, *seen[0].optimizer.variables)
    return [keras.ops.convert_to_numpy(variable) for variable in variables], result


def _stop_at(step, monkeypatch, stop):
    """Calls `stop` when this step is done, once."""
    original = module.SaveState.on_train_batch_end

    def on_train_batch_end(self, batch, logs=None):
        original(self, batch, logs)
        if self.step == step:
            stop()

    monkeypatch.setattr(module.SaveState, "on_train_batch_end", on_train_batch_end)


def _crash():
    raise RuntimeError("crashed")


def _check_equal(found, expected):
    for x, y in zip(found, expected, strict=True):
        if keras.backend.backend() == "torch":
            np.testing.assert_allclose(x, y, atol=1e-6)
        else:
            np.testing.assert_array_equal(x, y)


def test_resumed_run_ends_as_if_it_had_never_stopped(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        sys.modules["keras_perceiver.training.train"],
        "plot_history",
        lambda history, _, __, path: drawn.append(history) or path.write_text(""),
    )
    expected, whole = _run(tmp_path / "whole")
    assert not (tmp_path / "whole" / "checkpoints").exists()
    # A signal within an epoch. Runs that are killed have a test of their own.
    folder = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        _stop_at(12, patch, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(TrainingInterruptedError, match="SIGTERM came"):
            _run(folder)
    assert Checkpoints(folder / "checkpoints").load().step == 13
    found, result = _run(folder, resume=True)
    _check_equal(found, expected)
    assert result["test_accuracy"] == whole["test_accuracy"]
    assert result["test_loss"] == pytest.approx(whole["test_loss"], abs=1e-6)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    names = {"loss", "accuracy", "val_loss", "val_accuracy"}
    names |= {"learning_rate", "gradient_norm"}
    for history in drawn:
        assert history.keys() == names | {"examples_per_second"}
        for name, values in history.items():
            assert len(values) == EPOCHS
            if name in names:
                assert values == pytest.approx(drawn[0][name], abs=1e-5)


@pytest.mark.one_backend
def test_other_configuration_is_refused(tmp_path, monkeypatch):
    _stop_at(4, monkeypatch, _crash)
    with pytest.raises(RuntimeError, match="crashed"):
        _run(tmp_path)
    with pytest.raises(ValueError, match="with the configuration that it was") as error:
        _run(
            tmp_path,
            recipe=_recipe(dropout=0.3, learning_rate=0.02),
            seed=1,
            batch_size=16,
            resume=True,
        )
    text = str(error.value)
    assert "seed: 0 in the checkpoint, 1 now" in text
    assert "batch_size: 32 in the checkpoint, 16 now" in text
    assert "dropout: 0.2 in the checkpoint, 0.3 now" in text
    assert "learning_rate" in text
    assert "latent_dim" not in text  # which is the same
    with pytest.raises(FileExistsError, match="holds step-0000000004.*--resume"):
        _run(tmp_path)
    with pytest.raises(ValueError, match="`save_every` must be a positive integer"):
        train(_recipe(), tmp_path / "new", tmp_path, save_every=0)


@pytest.mark.one_backend
def test_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    original = module.SaveState.on_train_batch_end

    def on_train_batch_end(self, batch, logs=None):
        loss = float("nan") if self.step == 4 else logs["loss"]
        original(self, batch, {**logs, "loss": loss})

    monkeypatch.setattr(module.SaveState, "on_train_batch_end", on_train_batch_end)
    with pytest.raises(
        NonFiniteLossError, match=r"loss=nan at step 5.*step-0000000004.*learning rate"
    ):
        _run(tmp_path, keep=1)
    (newest,) = Checkpoints(tmp_path / "checkpoints").paths()  # and not that of step 2
    assert newest.name == "step-0000000004.checkpoint"


def test_settings_have_no_names_of_objects():
    first, second = (module.settings("model", _recipe().model(10)) for _ in range(2))
    assert first == second
    assert json.loads(json.dumps(first)) == first
    assert first["model.config.encoder.config.num_latents"] == 8


@pytest.mark.one_backend
def test_killed_runs_end_as_if_they_had_never_stopped(tmp_path):
    check_killed_runs(tmp_path, num_kills=1)


def check_killed_runs(folder, num_kills):
    """Kills a run at random moments, once each, and resumes it.

    By hand, on the backend of KERAS_BACKEND, twenty kills:

        python -c "import pathlib, tempfile; from tests.training import test_resume;
        test_resume.check_killed_runs(pathlib.Path(tempfile.mkdtemp()), 20)"
    """
    rng = np.random.default_rng()
    _in_another_process(folder / "whole").wait()
    for i in range(num_kills):
        process = _in_another_process(folder / str(i))
        # The first step comes when the imports and the compiler are done.
        while not list((folder / str(i)).glob("checkpoints/step-*")):
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        steps = [p.name for p in Checkpoints(folder / str(i) / "checkpoints").paths()]
        print(f"killed {i + 1}/{num_kills}, newest checkpoint: {steps[0]}", flush=True)
        assert _in_another_process(folder / str(i)).wait() == 0
        found, expected = (
            keras.saving.load_model(folder / name / "model.keras").get_weights()
            for name in (str(i), "whole")
        )
        _check_equal(found, expected)


def _in_another_process(folder):
    program = f"""
import pathlib, sys, torch
from tests.training import test_resume
sys.modules["keras_perceiver.training.train"].export_for_serving = lambda *x, **_: x[1]
test_resume.train(
    test_resume._recipe(), pathlib.Path({str(folder)!r}), {str(folder)!r},
    epochs=40, save_every=7, resume=True,
)
"""
    root = str(Path(__file__).parents[2])
    environment = {
        **os.environ,
        "KERAS_BACKEND": keras.backend.backend(),
        "PYTHONPATH": root,
    }
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=root,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
