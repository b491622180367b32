"""Private names of other libraries: each is used in one file, and is still there."""

import inspect
from pathlib import Path

import keras
import pytest

import keras_perceiver

ROOT = Path(keras_perceiver.__file__).parent

# From the file of the package to the names that it alone uses.
NAMES = {
    "models/trainer_guard.py": (
        "_get_jax_state",
        "_jax_state",
        "_jax_state_synced",
        "variable._value",
    ),
}


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("file", "name"), [(file, name) for file in NAMES for name in NAMES[file]]
)
def test_is_used_in_one_file(file, name):
    users = [
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        if name in path.read_text()
    ]
    assert users == [file]


if keras.backend.backend() == "jax":

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
        # The values are in the state, in the order of the variables, and nowhere else.
        assert state[0][0] is value
        assert variable._value is None
        variable.assign(value)
        assert variable._value is not None
        assert not value.is_deleted()
