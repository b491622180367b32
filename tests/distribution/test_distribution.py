"""Several devices: virtual devices of the CPU, and several processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_perceiver as kp
from keras_perceiver import distribution as module
from keras_perceiver.data import Splits
from keras_perceiver.distribution import Distribution, engines, processes
from keras_perceiver.training import train
from tests import distributed

BACKEND = keras.backend.backend()
ROOT = Path(__file__).parents[2]
# There are two devices, see conftest.py.
SEVERAL = {"tensorflow": "mirrored", "jax": "data_parallel"}.get(BACKEND)


def _start(*arguments, **environment):
    # Different from the number of devices in these tests.
    flags = os.environ["XLA_FLAGS"].replace(
        "--xla_force_host_platform_device_count=2", ""
    )
    return subprocess.Popen(
        [sys.executable, "-m", "tests.distributed", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _run(*arguments):
    process = _start(*arguments)
    output, _ = process.communicate()
    assert process.returncode == 0, output[-3000:]


def _free_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


# Keras has no distribution on torch.
if BACKEND != "torch":

    @pytest.mark.slow
    def test_weights_and_scores_are_the_same_on_any_number_of_devices(tmp_path):
        _run("numbers_of_devices", tmp_path)
        found = np.load(tmp_path / "found.npz")
        num_engines = {"tensorflow": 1, "jax": 2}[BACKEND]
        assert len(found.files) == (1 + 4 * num_engines) * 3
        loss, accuracy, norm = found["none 1 scores"]
        assert 0.1 < accuracy < 1
        for name in found.files:
            what = name.split(maxsplit=2)[2]
            expected = found[f"none 1 {what}"]
            if what != "scores":
                np.testing.assert_allclose(found[name], expected, atol=1e-5)
            else:
                assert found[name][1] == pytest.approx(accuracy, abs=1e-7), name
                assert found[name][[0, 2]] == pytest.approx([loss, norm], rel=1e-5)

    @pytest.fixture(scope="module")
    def one_process(tmp_path_factory):
        """Runs `resumes` and returns the weights of a run on four devices."""
        folder = tmp_path_factory.mktemp("resumes")
        _run("resumes", folder)
        found = np.load(folder / "found.npz")
        return [found[name] for name in found.files]

    @pytest.mark.slow
    def test_runs_resume_with_another_number_of_devices(one_process):
        assert len(one_process) > 20

    def test_a_model_trains_in_every_scope_of_equal_values():
        first, second = Distribution(SEVERAL, 2), Distribution(SEVERAL, 2)
        assert first == second
        assert first is not second
        inputs, labels = np.zeros((4, 8, 8, 1), "float32"), np.arange(4)
        with first.scope():
            distributed.recipe().model()
        keras.utils.clear_session(free_memory=False)  # as KerasTuner does
        with first.scope():
            model = kp.PerceiverClassifier(distributed.recipe().model(), 10)
            model.compile(
                "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            )
        with second.scope():
            model.fit(inputs, labels, batch_size=4, verbose=0)
            logits = module.predict_on_batch(model, inputs[:3])
        assert keras.distribution.distribution() is None
        assert logits.shape == (3, 10)


if BACKEND == "jax":

    def _two_processes(folder, stop_at):
        address = _free_address()
        return [_start("process", folder, address, i, stop_at) for i in range(2)]

    @pytest.mark.slow
    def test_two_processes_are_one_run(tmp_path, one_process):
        first, second = _two_processes(tmp_path, stop_at=7)
        second.communicate()
        assert second.returncode == -signal.SIGKILL
        start = time.perf_counter()
        output, _ = first.communicate()
        # With a heartbeat of 10 seconds instead of the default.
        assert time.perf_counter() - start < 30
        assert first.returncode == -signal.SIGABRT
        assert "another task died" in output, output[-3000:]
        assert "unhealthy (stopped sending heartbeats):\n1\n" in output
        checkpoints = list(tmp_path.glob("checkpoints/step-*"))
        assert {path.name for path in checkpoints} >= {"step-0000000006.checkpoint"}

        processes = _two_processes(tmp_path, stop_at=0)
        outputs = [process.communicate()[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], outputs
        assert all("data_parallel 4" in output for output in outputs)
        weights = [np.load(tmp_path / f"process{i}.npz") for i in range(2)]
        for i, expected in enumerate(one_process):
            name = f"arr_{i}"
            np.testing.assert_array_equal(weights[0][name], weights[1][name])
            np.testing.assert_allclose(weights[0][name], expected, atol=1e-5)
        assert (tmp_path / "model.keras").is_file()


def _splits(num_examples, batch_size, num_held_out):
    import tensorflow as tf

    def dataset(number):
        values = tf.range(number)
        return tf.data.Dataset.from_tensor_slices(({"x": values, "y": values}, values))

    train = dataset(num_examples).batch(batch_size)
    held_out = dataset(num_held_out).batch(batch_size)
    return Splits.from_datasets(train, held_out, held_out, ("a", "b"))


def _as_if(monkeypatch, num_replicas, num_processes=1, process_index=0):
    """Returns a distribution over nonexistent devices."""
    made = object.__new__(Distribution)
    settings = {"engine": "data_parallel", "devices": num_replicas, "model_devices": 1}
    for name, value in settings.items():
        object.__setattr__(made, name, value)
    monkeypatch.setattr(processes, "num_processes", lambda: num_processes)
    monkeypatch.setattr(processes, "process_index", lambda: process_index)
    return made


@pytest.mark.one_backend
def test_batches_are_padded_with_weight_zero(monkeypatch):
    made = _as_if(monkeypatch, 4)
    splits = made.splits(_splits(7, 6, 11))
    assert int(splits.train.cardinality()) == 2
    (inputs, labels, weights), (_, last, last_weights) = splits.epoch(0)
    assert inputs["x"].numpy().tolist() == [0, 1, 2, 3, 4, 5, 5, 5]
    assert labels.numpy().tolist() == inputs["y"].numpy().tolist()
    # The mean over a batch is the mean over its examples.
    assert weights.numpy().tolist() == pytest.approx([8 / 6] * 6 + [0] * 2)
    assert last.numpy().tolist() == [6] * 4
    assert last_weights.numpy().tolist() == [4, 0, 0, 0]
    # The mean over all rows is the mean over all examples: 6 and 5 in 8 and 8 rows.
    batches = list(splits.validation)
    weights = np.concatenate([weights for *_, weights in batches])
    assert weights.tolist() == pytest.approx(
        [16 / 11] * 6 + [0] * 2 + [16 / 11] * 5 + [0] * 3
    )
    values = np.concatenate([labels for _, labels, _ in batches])
    assert np.mean(weights * values) == pytest.approx(np.mean(np.arange(11)))
    assert [len(batch) for batch in splits.test] == [2, 2]  # as it was
    # Batches that divide stay as they are.
    assert len(next(iter(made.evaluation(_splits(8, 4, 8).test.take(1))))) == 3
    even = made.splits(_splits(8, 4, 8)._replace(validation=_even(8, 4)))
    assert len(next(iter(even.validation))) == 2


def _even(number, batch_size):
    return _splits(number, number, number).test.unbatch().batch(batch_size, True)


@pytest.mark.one_backend
def test_processes_have_disjoint_rows_of_each_batch(monkeypatch):
    whole = [
        labels.numpy().tolist()
        for _, labels, _ in _as_if(monkeypatch, 4).splits(_splits(14, 6, 6)).epoch(0)
    ]
    parts = []
    for index in range(2):
        splits = _as_if(monkeypatch, 4, 2, index).splits(_splits(14, 6, 6))
        parts.append([labels.numpy().tolist() for _, labels, _ in splits.epoch(0)])
        assert len(splits.validation) == 1
        assert [len(x) for x in next(iter(splits.validation))[1:]] == [4, 4]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole
    # Data that can be sharded read less.
    asked = []
    splits = _splits(8, 4, 4)
    own = splits._replace(train="own", epoch="epoch")
    splits = splits._replace(shard=lambda *part: asked.append(part) or own)
    found = _as_if(monkeypatch, 4, 2, 1).splits(splits)
    assert (found.train, found.epoch, asked) == ("own", "epoch", [(2, 1)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "horovod"}, r"`engine` must be one of .*'mirrored'.*'horovod'"),
        ({"engine": "none", "devices": 0}, "`devices` must be a positive integer"),
        ({"engine": "none", "devices": 2}, "'none' has one device.*devices=2"),
        (
            {"engine": "none", "model_devices": 2},
            "`model_devices` belongs to the engine",
        ),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        Distribution(**options)


def test_engines_of_other_backends_are_refused():
    for engine, backend in engines.BACKENDS.items():
        if backend != BACKEND:
            with pytest.raises(
                ValueError, match=f"Set KERAS_BACKEND={backend}"
            ) as error:
                Distribution(engine)
            assert ("no distribution on torch" in str(error.value)) == (
                BACKEND == "torch"
            )


def _no_data(batch_size, seed):
    raise AssertionError("The check came too late.")


def test_more_devices_than_available(tmp_path):
    import dataclasses

    recipe = dataclasses.replace(distributed.recipe(), data=_no_data)
    if BACKEND == "torch":
        expected = "'none' has one device"
    else:
        expected = "must not exceed the available devices.*devices=8.*2 available"
    folders = tmp_path / "run", tmp_path / "exports"
    with pytest.raises(ValueError, match=expected):
        train(recipe, *folders, devices=8)
    made = Distribution("none")
    with pytest.raises(
        ValueError, match="A `Distribution` defines its devices.*Remove"
    ):
        train(recipe, *folders, distribution=made, devices=1)
    if BACKEND != "torch":
        odd = recipe.replace({"batch_size": 3})
        with pytest.raises(ValueError, match="=3 for 2 replicas.*a multiple of 2"):
            train(odd, *folders, distribution=SEVERAL)
    if BACKEND == "tensorflow":
        parts = recipe.replace({"batch_size": 4, "accumulation_steps": 2})
        with pytest.raises(ValueError, match="cannot accumulate.*=2. Set it to 1"):
            train(parts, *folders, distribution=SEVERAL)


if BACKEND == "jax":

    def test_model_devices_must_divide_the_devices():
        with pytest.raises(ValueError, match="divisible by `model_devices`.*Choose a"):
            Distribution("model_parallel", devices=2, model_devices=3)
        assert Distribution("model_parallel").num_replicas == 1
        assert Distribution("model_parallel", model_devices=1).num_replicas == 2

    def test_kernels_that_do_not_divide_stay_whole():
        # Elements have a width of 1 + 18, and so have the keys of the cross-attend by
        # default.
        with Distribution("model_parallel").scope():
            model = distributed.recipe(
                modality=kp.Image((8, 8, 1), num_bands=4),
                cross_attend=kp.CrossAttend(),
            ).model()
        parts = {
            weight.path.split("/", 1)[1]: (
                weight.shape,
                weight.value.addressable_shards[0].data.shape,
            )
            for weight in model.weights
        }
        names = [name for name in parts if name.endswith("query/kernel")]
        cross, own = sorted(names)
        assert "cross" in cross
        assert parts[cross] == ((16, 19), (16, 19))
        assert parts[own] == ((16, 16), (16, 8))

    def test_several_processes_must_train_together(monkeypatch):
        monkeypatch.setattr(processes, "num_processes", lambda: 2)
        assert Distribution().engine == "data_parallel"
        with pytest.raises(ValueError, match="Several processes must train together"):
            Distribution("none")
        with pytest.raises(ValueError, match="split within one process"):
            Distribution("model_parallel")
        with pytest.raises(ValueError, match="use all their devices.*devices=1 of 2"):
            Distribution(devices=1)

    def test_auto_takes_several_accelerators(monkeypatch):
        assert Distribution() == Distribution("none")  # CPUs are not accelerators
        assert Distribution(devices=2) == Distribution("data_parallel", 2)
        import jax

        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        assert Distribution() == Distribution("data_parallel", 2)
        assert Distribution(devices=1) == Distribution("none")

    def test_processes_find_each_other(monkeypatch):
        calls = []
        import jax

        monkeypatch.setattr(jax.config, "update", lambda *setting: None)
        monkeypatch.setattr(
            jax.distributed, "initialize", lambda *a, **k: calls.append((a, k))
        )
        module.initialize()
        assert not calls  # alone
        module.initialize("host:1", 2, 1, heartbeat_seconds=10)
        module.initialize("auto")
        for name, value in {
            "JOB_ADDRESSES": "first:1,second:1",
            "NUM_PROCESSES": "2",
            "PROCESS_ID": "0",
        }.items():
            monkeypatch.setenv(f"KERAS_DISTRIBUTION_{name}", value)
        module.initialize()
        assert [arguments for arguments, _ in calls] == [
            ("host:1", 2, 1),
            (None, None, None),
            ("first:1", 2, 0),
        ]
        assert calls[0][1]["heartbeat_timeout_seconds"] == 10
        assert calls[1][1]["heartbeat_timeout_seconds"] == 30

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("host:1", 2), "`process_index`. Received: .*process_index=None"),
            (("host:1", 2, 2), r"`process_index` must be from 0.*process_index=2"),
            (("host:1", 0, 0), "`num_processes` must be a positive integer"),
        ],
    )
    def test_bad_processes(arguments, message):
        with pytest.raises(ValueError, match=message):
            module.initialize(*arguments)

else:

    def test_several_processes_are_for_jax():
        with pytest.raises(ValueError, match="on JAX only.*Set KERAS_BACKEND=jax"):
            module.initialize("host:1", 2, 0)


if BACKEND == "torch":

    def test_processes_of_torchrun_are_refused(monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", "1")
        assert processes.process_index() == 1
        with pytest.raises(ValueError, match="in 2 processes with KERAS_BACKEND=torch"):
            Distribution()


@pytest.mark.one_backend
def test_exiting_process_does_not_wait_for_others(monkeypatch, capsys):
    with pytest.raises(SystemExit, match="error: alone"):
        module.exit_process("error: alone")
    statuses = []
    monkeypatch.setattr(os, "_exit", statuses.append)
    monkeypatch.setattr(processes, "num_processes", lambda: 2)
    module.exit_process("error: one of two")
    module.exit_process(143)
    assert statuses == [1, 143]
    assert capsys.readouterr().err == "error: one of two\n"


def test_environment_must_be_numbers(monkeypatch):
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "two")
    with pytest.raises(ValueError, match="NUM_PROCESSES` must be a number.*'two'"):
        module.initialize()


if BACKEND == "tensorflow":

    def test_auto_takes_a_tpu_or_several_gpus(monkeypatch):
        import tensorflow as tf

        there = {"CPU": ["cpu"], "GPU": [], "TPU": []}
        monkeypatch.setattr(tf.config, "list_physical_devices", there.__getitem__)
        assert Distribution() == Distribution("none")  # CPUs are not accelerators
        there["GPU"] = ["gpu"]
        assert Distribution().engine == "none"
        assert Distribution(devices=2) == Distribution("mirrored", 2)
        there["GPU"] = ["gpu", "gpu"]
        assert Distribution() == Distribution("mirrored", 2)
        assert Distribution(devices=1).engine == "none"

        # A TPU is connected to once, with its own strategy.
        connected = []
        strategy = type("Strategy", (), {"num_replicas_in_sync": 8})()
        strategy.scope = lambda: tf.distribute.get_strategy().scope()
        monkeypatch.setattr(
            tf.distribute.cluster_resolver.TPUClusterResolver,
            "connect",
            lambda name: connected.append(name) or "resolver",
        )
        monkeypatch.setattr(tf.distribute, "TPUStrategy", lambda resolver: strategy)
        there["TPU"] = ["tpu"]
        engines.tpu_strategy.cache_clear()
        engines.strategy_of.cache_clear()
        assert Distribution() == Distribution("tpu", 8)
        with pytest.raises(ValueError, match="A TPU.*devices=4 of 8"):
            Distribution("tpu", devices=4)
        with pytest.raises(ValueError, match="devices=16, but 8 available"):
            Distribution("tpu", devices=16)
        with Distribution().scope():
            pass
        assert connected == ["local"]
        engines.tpu_strategy.cache_clear()
        engines.strategy_of.cache_clear()
        there["TPU"] = []
        monkeypatch.setenv("TPU_NAME", "far")
        assert Distribution().engine == "tpu"
        assert connected == ["local", "far"]
        engines.tpu_strategy.cache_clear()
        engines.strategy_of.cache_clear()

    def test_several_workers_are_refused(monkeypatch):
        cluster = {"worker": ["first:1", "second:1"]}
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster}))
        for engine in ("auto", "mirrored"):
            with pytest.raises(
                ValueError,
                match="needs JAX.*MultiWorkerMirroredStrategy fails.*--address first:1",
            ):
                Distribution(engine)
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["one:1"]}}))
        assert Distribution().engine == "none"
        monkeypatch.setenv("TF_CONFIG", "nonsense")
        with pytest.raises(ValueError, match="TF_CONFIG must be JSON"):
            Distribution()

    @pytest.mark.slow
    def test_several_workers_still_have_to_be_refused():
        # If this fails, Keras supports it: allow MultiWorkerMirroredStrategy, and
        # accumulation under MirroredStrategy.
        addresses = [_free_address(), _free_address()]
        workers = [_start("worker", i, *addresses) for i in range(2)]
        for worker in workers:
            output, _ = worker.communicate()
            assert worker.returncode == 1
            assert "PerReplica" in output.strip().splitlines()[-1], output[-3000:]
