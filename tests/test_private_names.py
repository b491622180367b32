"""Private names of other packages: each is used in one place, and still works.

When a package is upgraded, these tests show what to check. A new use of a private name is
found by `test_every_use_is_listed`, and needs a line in `USES` and a test of its meaning.
"""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_perceiver

ROOT = Path(keras_perceiver.__file__).parent
BACKEND = keras.backend.backend()

# The file that uses the name, and its purpose.
USES = {
    # Keras
    "_apply_weight_decay": "training/lamb.py",  # after the trust ratio instead of before it
    "_get_variable_index": "training/lamb.py",
    "_momentums": "training/lamb.py",
    "_use_weight_decay": "training/lamb.py",
    "_velocities": "training/lamb.py",
    "_learning_rate": "training/schedules.py",  # the schedule instead of its value
    "_all_reduce_sum_gradients": "training/tracking.py",
    "_iterations": "training/tracking.py",
    "_layout": "training/tracking.py",  # averages are split like the weights
    "_trainable_variables": "training/tracking.py",
    "_get_jax_state": "models/trainer_guard.py",  # the state that the JAX trainer passes on
    "_jax_state": "models/trainer_guard.py",
    "_jax_state_synced": "models/trainer_guard.py",
    "_value": "models/trainer_guard.py",
    "_symbolic_build": "models/checked_model.py",  # before it fails on the first batch
    "_flatten_layers": "layers/composite.py",
    "_inbound_nodes": "models/head.py",  # where a task calls its encoder
    "_keras_history": "models/head.py",
    "_initial_seed": "layers/seeds.py",  # torch's dropout reads it
    # KerasTuner
    "_check_consecutive_failures": "tuning/oracles.py",
    "_random_values": "tuning/oracles.py",
    # TensorFlow
    "tensorflow.python.saved_model.fingerprinting_utils": "serving/graph.py",
    # TensorFlow Datasets: the interface of builders
    "_info": "data/builders/",
    "_split_generators": "data/builders/",
    "_generate_examples": "data/builders/",
}

# Public despite their names, and attributes that Python and torch add to classes.
_NO_PRIVATE_NAMES = {
    "_replace",
    "_asdict",
    "_fields",
    "_exit",
    "_abc_impl",
    "_backward_cls",
}
_PROGRAMS = ("check_saved_model", "check_file")  # without the package


def _is_private(name):
    return name[0] == "_" and name[:2] != "__" and name not in _NO_PRIVATE_NAMES


def _own_names(trees):
    """Returns the names that the package defines or sets on its own objects."""
    names = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif (
                isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and isinstance(node.value, ast.Name)
                and node.value.id in ("self", "cls")
            ):
                names.add(node.attr)
    return names


def _names_in_source():
    """Yields (name, file) of attributes that are not ours, and of private modules."""
    trees = {path: ast.parse(path.read_text()) for path in ROOT.rglob("*.py")}
    own = _own_names(trees.values()) - set(USES)
    for path, tree in trees.items():
        file = path.relative_to(ROOT).as_posix()
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                name = node.attr
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr":
                name = ast.unparse(node.args[1]).strip("'")
            elif isinstance(node, ast.ImportFrom):
                parts = node.module.split(".")
                if parts[0] == "keras_perceiver" or not {"src", "python"} & set(parts):
                    continue
                for alias in node.names:
                    yield f"{node.module}.{alias.name}", file
                continue
            else:
                continue
            if _is_private(name) and name not in own:
                yield name, file


def _overridden_names():
    """Yields (name, file) of overridden private methods of other packages."""
    for module in pkgutil.walk_packages([str(ROOT)], "keras_perceiver."):
        if module.name.endswith(_PROGRAMS):
            continue
        for cls in vars(importlib.import_module(module.name)).values():
            if not inspect.isclass(cls) or cls.__module__ != module.name:
                continue
            others = [
                vars(base)
                for base in cls.__mro__[1:-1]
                if not base.__module__.startswith("keras_perceiver")
            ]
            for name in filter(_is_private, vars(cls)):
                if any(name in names for names in others):
                    file = Path(inspect.getfile(cls)).relative_to(ROOT).as_posix()
                    yield name, file


def test_every_use_is_listed():
    found = {*_names_in_source(), *_overridden_names()}
    for name, file in sorted(found):
        assert name in USES, f"{file} uses {name}, which is private: list it in USES"
        assert file.startswith(USES[name]), f"{name} is used in {file} too"


def _built(optimizer):
    weight = keras.Variable(np.ones((2, 3), "float32"), name="weight")
    optimizer.build([weight])
    return weight


def test_state_of_optimizers():
    optimizer = keras.optimizers.Lamb(keras.optimizers.schedules.CosineDecay(0.1, 9))
    weight = _built(optimizer)
    assert optimizer._get_variable_index(weight) == 0
    for slots in (optimizer._momentums, optimizer._velocities):
        assert [tuple(slot.shape) for slot in slots] == [(2, 3)]
    assert optimizer._trainable_variables == [weight]
    assert optimizer._iterations is optimizer.iterations
    assert optimizer._use_weight_decay(weight)
    assert isinstance(optimizer._learning_rate, keras.optimizers.schedules.CosineDecay)
    assert hasattr(weight, "_layout")


def test_optimizers_apply_weight_decay_by_this_method():
    calls = []

    class Recording(keras.optimizers.Lamb):
        def _apply_weight_decay(self, trainable_variables):
            calls.append(list(trainable_variables))

    optimizer = Recording(0.1, weight_decay=0.1)
    weight = _built(optimizer)
    optimizer.apply([keras.ops.ones((2, 3))], [weight])
    assert calls == [[weight]]


def test_value_of_a_variable():
    weight = keras.Variable(np.ones(3, "float32"))
    assert weight._value is not None
    assert tuple(weight._value.shape) == (3,)


def test_inner_layers_are_found():
    inner = keras.layers.Dense(2)
    outer = keras.layers.Bidirectional(keras.layers.LSTM(2))
    model = keras.Sequential([keras.Input((3, 4)), inner, outer])
    found = list(model._flatten_layers(include_self=False, recursive=False))
    assert inner in found
    assert outer in found
    assert outer.forward_layer not in found
    assert outer.forward_layer in model._flatten_layers()


def test_symbolic_tensors_know_the_call_that_returned_them():
    inputs = keras.Input((2,))
    layer = keras.layers.Dense(3)
    first, second = layer(inputs), layer(inputs)
    found, index, _ = second._keras_history
    assert found is layer
    node = found._inbound_nodes[index]
    assert node.outputs == [second]
    assert node.outputs != [first]
    assert node.input_tensors == [inputs]


def test_seed_generators_keep_their_first_seed():
    assert keras.random.SeedGenerator(3)._initial_seed == 3


def test_keras_builds_loss_and_metrics_from_a_batch_by_this_method():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    assert list(inspect.signature(model._symbolic_build).parameters) == [
        "iterator",
        "data_batch",
    ]
    model.compile("sgd", "mse", metrics=["mae"])
    batch = np.zeros((3, 2), "float32"), np.zeros((3, 1), "float32")
    batches = iter([(0, 0, [batch]), (1, 1, [batch])])
    model._symbolic_build(batches)
    assert len(list(batches)) == 1
    model._symbolic_build(iter(()))  # all is built, so it needs no batch


if BACKEND == "jax":

    def test_keras_jax_trainer_has_its_state():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        parameters = inspect.signature(model._get_jax_state).parameters
        assert list(parameters) == [
            "trainable_variables",
            "non_trainable_variables",
            "optimizer_variables",
            "metrics_variables",
            "purge_model_variables",
        ]
        assert model._jax_state_synced is True
        variable = model.trainable_variables[0]
        value = variable._value
        state = model._get_jax_state(
            trainable_variables=True, purge_model_variables=True
        )
        # Values are only in the state, in the order of the variables.
        assert state[0][0] is value
        assert variable._value is None
        variable.assign(value)
        assert variable._value is not None
        assert not value.is_deleted()


if BACKEND == "tensorflow":

    def test_optimizers_sum_gradients_over_replicas_by_this_method():
        import tensorflow as tf

        calls = []
        strategy = tf.distribute.MirroredStrategy(
            ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
        )
        with strategy.scope():
            optimizer = keras.optimizers.SGD(1.0)
            weight = _built(optimizer)

        def keep(grads_and_vars):
            calls.append(1)
            return list(grads_and_vars)

        optimizer._all_reduce_sum_gradients = keep
        strategy.run(lambda: optimizer.apply([tf.ones((2, 3))], [weight]))
        assert calls
        # Each replica has used its own gradient instead of the sum.
        np.testing.assert_array_equal(weight.numpy(), np.zeros((2, 3)))

    def test_fingerprint_of_a_saved_model(tmp_path):
        import tensorflow as tf
        from tensorflow.python.saved_model import fingerprinting_utils

        tf.saved_model.save(tf.Module(), str(tmp_path))
        before = tf.saved_model.experimental.read_fingerprint(str(tmp_path))
        (tmp_path / "fingerprint.pb").unlink()
        fingerprinting_utils.write_fingerprint(str(tmp_path))
        after = tf.saved_model.experimental.read_fingerprint(str(tmp_path))
        assert after.saved_model_checksum == before.saved_model_checksum

    def test_raw_operations_exist():
        import tensorflow as tf

        names = "Assert ImageProjectiveTransformV3 Snapshot TensorListReserve"
        names += " TensorListSetItem TensorListStack"
        used = {
            node.attr
            for path in ROOT.rglob("*.py")
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute)
            and ast.unparse(node.value) == "tf.raw_ops"
        }
        assert used == set(names.split())
        for name in used:
            assert callable(getattr(tf.raw_ops, name))


@pytest.mark.one_backend
def test_proposals_of_kerastuner(tmp_path):
    import keras_tuner as kt

    calls = []

    class Recording(kt.oracles.RandomSearchOracle):
        def _random_values(self):
            calls.append("values")
            return super()._random_values()

        def _check_consecutive_failures(self):
            calls.append("failures")
            return super()._check_consecutive_failures()

    space = kt.HyperParameters()
    space.Choice("width", [1, 2])
    objective = kt.Objective("score", "max")
    oracle = Recording(objective, max_trials=1, hyperparameters=space)
    oracle._set_project_dir(tmp_path, "search")
    trial = oracle.create_trial("worker")
    assert trial.hyperparameters.values["width"] in (1, 2)
    assert oracle.ongoing_trials == {"worker": trial}
    oracle.update_trial(trial.trial_id, {"score": 1.0})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)
    assert calls == ["values", "failures"]
    # Hyperband's constructor creates an oracle. Ours takes one.
    assert kt.Hyperband.__mro__[1] is kt.Tuner
