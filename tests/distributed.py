"""Programs that tests/distribution runs with several devices and processes.

KERAS_BACKEND=jax python -m tests.distributed TASK ARGUMENTS
"""

import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_perceiver import (
    CrossAttend,
    Distribution,
    PerceiverClassifier,
    SelfAttend,
    distribution,
    recipes,
)
from keras_perceiver.data import digits
from keras_perceiver.training import TrackingOptimizer, compile_task
from tests.training.runs import (
    BeforeStep,
    crash,
    few_digits,
    finished,
    little_recipe,
    sgd,
)

NUM_DEVICES = (1, 2, 4, 8)
STEPS_PER_EPOCH, EPOCHS = 5, 2


def recipe(**settings):
    """Returns ten steps of a small model, in which only the order of the data is random.

    It uses momentum and gradient clipping instead of Adam, which makes a full step for
    gradients that are zero up to rounding, such as that of the keys' biases.
    """
    model = recipes.get("digits").model.replace(
        {
            "num_latents": 8,
            "latent_dim": 16,
            "num_blocks": 1,
            "num_self_attends_per_block": 1,
            "cross_attend": CrossAttend(num_heads=8, qk_dim=16),
            "self_attend": SelfAttend(num_heads=8),
            **settings,
        }
    )
    return little_recipe(
        data=partial(few_digits, steps_per_epoch=STEPS_PER_EPOCH),
        model=model,
        optimizer=sgd(0.05, momentum=0.9, global_clipnorm=1.0),
        schedule=None,
        epochs=EPOCHS,
        batch_size=64,
        label_smoothing=0.1,
    )


def one_and_ten_steps(engine, num_devices):
    """Returns the model, its weights after one and after ten steps, and its scores."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    devices = Distribution(engine, num_devices)
    little = recipe()
    splits = devices.splits(little.splits(64))
    weights = []
    with devices.scope():
        model = little.build_task(little.model(), splits)
        optimizer = TrackingOptimizer(little.build_optimizer(10))
        compile_task(model, optimizer, little.label_smoothing)
        for first, last, num_done in ((0, 1, 4), (1, 3, 1)):
            model.fit(
                splits.epochs(first, last, num_done),
                steps_per_epoch=1 if num_done == 4 else 9,
                verbose=0,
            )
            weights.append(model.get_weights())
        scores = model.evaluate(devices.evaluation(splits.test), verbose=0)
        norm = model.optimizer.mean_gradient_norm()
    return model, weights, [*scores, norm]


def numbers_of_devices(folder):
    """Trains on every number of devices with every engine, and writes the results."""
    engines = {
        "tensorflow": ("mirrored",),
        "jax": ("data_parallel", "model_parallel"),
    }[keras.backend.backend()]
    found = {}
    for engine in ("none", *engines):
        for number in NUM_DEVICES if engine != "none" else (1,):
            model, weights, scores = one_and_ten_steps(engine, number)
            name = f"{engine} {number}"
            for steps, arrays in zip((1, 10), weights, strict=True):
                found[f"{name} weights {steps}"] = np.concatenate(
                    [array.ravel() for array in arrays]
                )
            found[f"{name} scores"] = np.array(scores)
            if engine == "model_parallel" and number == 4:
                _check_layouts(model)
    np.savez(Path(folder) / "found.npz", **found)


def _check_layouts(model):
    """Checks that large kernels are split on the intended axis, and nothing else is."""
    axes = {"query": 1, "key": 1, "value": 1, "mlp_hidden": 1}
    axes |= {"output_projection": 0, "mlp_output": 0}
    num_split = 0
    for variable in (*model.variables, *model.optimizer.variables):
        shard = variable.value.addressable_shards[0].data.shape
        expected = list(variable.shape)
        *_, layer, name = ("", *variable.path.split("/"))
        for part, axis in axes.items():
            is_kernel = layer == part and name == "kernel"
            is_slot = f"_{part}_kernel_" in name
            is_bias = axis == 1 and (
                (layer == part and name == "bias") or f"_{part}_bias_" in name
            )
            if is_kernel or is_slot:
                expected[axis] //= 4
                num_split += 1
            elif is_bias:
                expected[0] //= 4
        assert shard == tuple(expected), (variable.path, shard, expected)
    assert num_split == 2 * 2 * 6, num_split  # weights and momentum, two blocks


def run(folder, engine, num_devices, callbacks=()):
    """Trains or resumes the recipe, and returns the run."""
    keras.utils.clear_session(free_memory=False)
    return finished(
        recipe(),
        Path(folder),
        callbacks,
        save_every=3,
        resume=True,
        distribution=engine,
        devices=num_devices,
    )


def resumes(folder):
    """Trains on four devices, then two, then four, and checks the export."""
    engine = {"tensorflow": "mirrored", "jax": "data_parallel"}
    engine = engine[keras.backend.backend()]
    whole = run(f"{folder}/whole", "none", 1)
    name = f"{folder}/resumed"
    for num_devices in (4, 2):  # the second run continues after step 3
        with pytest.raises(RuntimeError, match="crashed"):
            run(name, engine, num_devices, [BeforeStep(4, crash)])
    assert list(Path(name).glob("checkpoints/step-*6.checkpoint"))
    resumed = run(name, engine, 4)
    found, metrics = resumed.model, resumed.metrics
    assert (metrics["distribution"], metrics["devices"]) == (engine, 4)
    weights = zip(found.get_weights(), whole.model.get_weights(), strict=True)
    for a, b in weights:
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert round(metrics["test_accuracy"] - whole.metrics["test_accuracy"], 6) == 0

    # The model in the file is on one device, and has the same predictions.
    images = next(digits().test.take(1).as_numpy_iterator())[0][:3]
    with Distribution(engine, 4).scope():
        logits = distribution.predict_on_batch(found, images)
    saved = keras.saving.load_model(resumed.result["model"], compile=False)
    outputs = keras.ops.convert_to_numpy(saved(images))
    np.testing.assert_allclose(outputs, logits, atol=1e-5)
    np.savez(Path(folder) / "found.npz", *found.get_weights())


def process(folder, address, index, stop_at):
    """Runs one of two processes that train together. The second one may die."""
    distribution.virtual_devices(2)
    distribution.initialize(address, 2, int(index), heartbeat_seconds=10)
    callbacks = []
    if int(stop_at) and int(index) == 1:
        kill = partial(os.kill, os.getpid(), signal.SIGKILL)
        callbacks = [BeforeStep(int(stop_at), kill)]
    run = finished(recipe(), Path(folder), callbacks, save_every=3, resume=True)
    metrics = run.metrics
    print(metrics["distribution"], metrics["devices"], metrics["test_accuracy"])
    np.savez(Path(folder) / f"process{index}.npz", *run.model.get_weights())


def overhead(engine, batch_size="64"):
    """Prints the time of a step on two devices relative to one, at one batch size.

    To run it: KERAS_BACKEND=jax python -m tests.distributed overhead data_parallel. All
    devices share the CPU, so the ratio is at least 1.
    """
    distribution.virtual_devices(2)
    steps = []
    for devices in (Distribution("none"), Distribution(engine, 2)):
        splits = devices.splits(digits(int(batch_size), use_augmentation=False))
        with devices.scope():
            model = PerceiverClassifier.from_preset(
                "digits", **{"cross_attend.dropout": 0.0, "self_attend.dropout": 0.0}
            )
            model.compile(
                "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            )
        steps.append((devices, model, splits.epochs(0, 3).cache()))
    num_steps = 3 * len(splits.train)
    seconds = ([], [])
    for _ in range(6):  # alternating, since the machine may have other load
        for (devices, model, data), found in zip(steps, seconds, strict=True):
            ends = []
            each = keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda *_, ends=ends, **__: ends.append(
                    time.perf_counter()
                )
            )
            with devices.scope():
                model.fit(data, steps_per_epoch=num_steps, verbose=0, callbacks=[each])
            # Without the first steps, which wait for the data.
            found.append((time.perf_counter() - ends[2]) / (len(ends) - 3))
    alone, together = (np.median(found[1:]) for found in seconds)
    print(f"{engine}: {alone:.4f} s, {together:.4f} s, ratio {together / alone:.2f}")


def worker(index, *addresses):
    """Runs one of two TensorFlow workers, and prints the error of `fit` at the end."""
    import tensorflow as tf

    task = {"type": "worker", "index": int(index)}
    cluster = {"cluster": {"worker": addresses}, "task": task}
    os.environ["TF_CONFIG"] = json.dumps(cluster)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", jit_compile=False)
    ones = tf.ones((4, 2)), tf.ones((4, 1))
    try:
        model.fit(tf.data.Dataset.from_tensors(ones), shuffle=False, verbose=0)
        message, status = "fit works", 0
    except Exception as error:
        message, status = " ".join(str(error).split()), 1
    print(message, flush=True)
    os._exit(status)  # workers wait for each other at a normal exit


if __name__ == "__main__":
    start = time.perf_counter()
    task, *arguments = sys.argv[1:]
    if task in ("numbers_of_devices", "resumes"):
        distribution.virtual_devices(8 if task == "numbers_of_devices" else 4)
    globals()[task](*arguments)
    print(f"{task}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
