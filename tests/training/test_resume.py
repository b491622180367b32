import dataclasses
import importlib.metadata
import json
import os
import re
import signal
from functools import partial

import keras
import pytest

from keras_perceiver import (
    Image,
    PerceiverDecoder,
    PerceiverDensePredictor,
    PositionQueries,
)
from keras_perceiver.config import Config
from keras_perceiver.training import (
    NonFiniteLossError,
    Run,
    TrainingInterruptedError,
    saved_overrides,
)
from keras_perceiver.training.checkpoints import Checkpoints
from keras_perceiver.training.provenance import provenance
from keras_perceiver.training.resume import settings
from tests.training.runs import (
    BeforeStep,
    check_equal,
    crash,
    few_digits,
    finished,
    recipe_with_all_state,
)

STEPS_PER_EPOCH, EPOCHS = 5, 3


def _run(folder, recipe=None, **options):
    """Returns a finished run, and the values of its weights and its optimizer."""
    keras.utils.clear_session(free_memory=False)
    run = finished(recipe or recipe_with_all_state(), folder, save_every=2, **options)
    variables = (*run.model.weights, *run.model.optimizer.variables)
    return run, [keras.ops.convert_to_numpy(variable) for variable in variables]


@pytest.mark.fast_on("torch")
def test_resumed_run_ends_as_if_it_had_never_stopped(tmp_path):
    whole, expected = _run(tmp_path / "whole")
    # A signal within an epoch. Killed runs have a separate test.
    folder = tmp_path / "stopped"
    stop = BeforeStep(12, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(TrainingInterruptedError, match="Received SIGTERM"):
        _run(folder, callbacks=[stop])
    assert Checkpoints(folder / "checkpoints").load().step == 13
    resumed, found = _run(folder, resume=True)
    check_equal(found, expected)
    assert resumed.metrics["test_accuracy"] == whole.metrics["test_accuracy"]
    loss = whole.metrics["test_loss"]
    assert resumed.metrics["test_loss"] == pytest.approx(loss, abs=1e-6)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    names = {"loss", "accuracy", "val_loss", "val_accuracy"}
    names |= {"learning_rate", "gradient_norm"}
    for run in (whole, resumed):
        assert run.history.keys() == names | {"examples_per_second"}
        for name, values in run.history.items():
            assert len(values) == EPOCHS
            if name in names:
                assert values == pytest.approx(whole.history[name], abs=1e-5)


def _images_as_targets(**arguments):
    """Returns the digits as images and images: an autoencoder learns them."""
    splits = few_digits(**arguments, steps_per_epoch=STEPS_PER_EPOCH)

    def both(dataset):
        return dataset and dataset.map(lambda x, y, *weights: (x, x, *weights))

    return splits._replace(
        train=both(splits.train),
        validation=both(splits.validation),
        test=both(splits.test),
        epoch=lambda number, num_done=0: both(splits.epoch(number, num_done)),
        class_names=(),
    )


@pytest.mark.fast_on("torch")
def test_dense_task_is_resumed(tmp_path):
    recipe = recipe_with_all_state().replace(
        {"model.modality": Image((8, 8, 1), num_bands=4)}
    )
    decoder = PerceiverDecoder(PositionQueries((8, 8), num_bands=4))
    recipe = dataclasses.replace(
        recipe,
        data=Config(_images_as_targets),
        task=Config(PerceiverDensePredictor, num_channels=1, decoder=decoder),
        label_smoothing=0.0,
        overrides={},
    )
    whole, expected = _run(tmp_path / "whole", recipe)
    folder = tmp_path / "stopped"
    with pytest.raises(RuntimeError, match="crashed"):
        _run(folder, recipe, callbacks=[BeforeStep(12, crash)])
    resumed, found = _run(folder, recipe, resume=True)
    check_equal(found, expected)
    assert resumed.metrics["test_r2"] == pytest.approx(whole.metrics["test_r2"])
    with pytest.raises(
        ValueError, match="`label_smoothing` is for tasks whose default"
    ):
        _run(tmp_path / "c", dataclasses.replace(recipe, label_smoothing=0.1))


@pytest.mark.one_backend
def test_other_configuration_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="crashed"):
        _run(tmp_path, callbacks=[BeforeStep(4, crash)])
    other = recipe_with_all_state().replace(
        {
            "model.self_attend.dropout": 0.3,
            "optimizer.learning_rate.initial_learning_rate": 0.02,
            "batch_size": 16,
        }
    )
    with pytest.raises(ValueError, match="configuration that it was started") as error:
        _run(tmp_path, other, seed=1, resume=True)
    text = str(error.value)
    assert "seed: 0 in the checkpoint, 1 now" in text
    assert "batch_size: 32 in the checkpoint, 16 now" in text
    assert "dropout: 0.2 in the checkpoint, 0.3 now" in text
    assert "learning_rate" in text
    assert "latent_dim" not in text  # which is the same
    with pytest.raises(FileExistsError, match="contains step-0000000004.*--resume"):
        _run(tmp_path)


def _other_digits(batch_size, seed, steps_per_epoch=None, use_augmentation=False):
    splits = few_digits(batch_size, seed, steps_per_epoch, use_augmentation)
    return splits._replace(validation=splits.validation.map(lambda x, y: (x / 2, y)))


@pytest.mark.one_backend
def test_other_data_or_versions_cause_a_warning(tmp_path, monkeypatch):
    data = partial(
        _other_digits, steps_per_epoch=STEPS_PER_EPOCH, use_augmentation=True
    )
    with pytest.raises(RuntimeError, match="crashed"):
        _run(tmp_path, callbacks=[BeforeStep(4, crash)])
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0")
    recipe = dataclasses.replace(recipe_with_all_state(), data=data)
    run = Run(recipe, tmp_path, save_every=2, resume=True)
    with pytest.warns(
        UserWarning, match="should be resumed with the versions"
    ) as found:
        run.prepare()
    (text,) = [str(w.message) for w in found if "resumed with" in str(w.message)]
    assert f"keras: {keras.__version__} in the checkpoint, 0.0 now" in text
    assert re.search(r"data: [0-9a-f]{12} in the checkpoint, [0-9a-f]{12} now", text)
    assert "code:" not in text  # unchanged


@pytest.mark.one_backend
def test_fingerprints_depend_on_the_data():
    """They do not depend on the seed or the augmentation."""
    one, same, other, fewer = (
        provenance(splits)
        for splits in (
            few_digits(32, 0),
            few_digits(32, 7, use_augmentation=True),
            _other_digits(32, 0),
            few_digits(32, 0, steps_per_epoch=2),
        )
    )
    assert one == same
    assert one["data"] not in (other["data"], fewer["data"])
    assert one["keras"] == keras.__version__
    assert len(one["code"]) == 12


@pytest.mark.one_backend
@pytest.mark.slow
def test_checkpoints_have_the_overrides(tmp_path):
    overrides = {"epochs": 2, "model.modality.modality.shape": (8, 8, 1)}
    assert saved_overrides(tmp_path / "checkpoints") == {}
    with pytest.raises(RuntimeError, match="crashed"):
        _run(
            tmp_path,
            recipe_with_all_state().replace(overrides),
            callbacks=[BeforeStep(4, crash)],
        )
    saved = saved_overrides(tmp_path / "checkpoints")
    assert saved == {**overrides, "model.modality.modality.shape": [8, 8, 1]}
    run, _ = _run(tmp_path, recipe_with_all_state().replace(saved), resume=True)
    assert len(run.history["loss"]) == 2


class _NotFinite(BeforeStep):
    """Reports a loss that is not finite after one step."""

    def on_train_batch_end(self, batch, logs=None):
        if self.was_called:
            logs["loss"] = float("nan")


@pytest.mark.one_backend
def test_loss_that_is_not_finite_stops_the_run(tmp_path):
    not_finite = _NotFinite(4, lambda: setattr(not_finite, "was_called", True))
    not_finite.was_called = False
    message = r"loss=nan at step 5.*step-0000000004.*learning rate"
    with pytest.raises(NonFiniteLossError, match=message):
        _run(tmp_path, keep=1, callbacks=[not_finite])
    (newest,) = Checkpoints(tmp_path / "checkpoints").paths()  # step 2 is removed
    assert newest.name == "step-0000000004.checkpoint"


def test_settings_have_no_names_of_objects():
    first, second = (
        settings("model", recipe_with_all_state().model()) for _ in range(2)
    )
    assert first == second
    assert json.loads(json.dumps(first)) == first
    assert first["model.config.num_latents"] == 8
