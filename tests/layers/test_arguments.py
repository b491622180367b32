"""Configs that follow from constructors."""

import json

import keras
import pytest

from keras_perceiver.layers.arguments import ArgumentsConfig


@keras.saving.register_keras_serializable(package="tests")
class Outer(ArgumentsConfig, keras.layers.Layer):
    def __init__(self, units, inner=None, activation="relu", scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.inner = inner
        self.activation = keras.activations.get(activation)
        self.scale = scale


@keras.saving.register_keras_serializable(package="tests")
class Child(Outer):
    def __init__(self, rate, **kwargs):
        super().__init__(3, **kwargs)
        self.rate = rate

    @property
    def stored_arguments(self):
        return {"scale": 2.0}


def _restored(layer):
    stored = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    return keras.saving.deserialize_keras_object(stored)


def test_every_argument_is_stored_and_restored():
    inner = keras.layers.Dense(4, kernel_initializer="zeros", name="inner")
    layer = Outer(2, inner, "tanh", name="outer", dtype="mixed_bfloat16")
    assert layer.get_config()["activation"] == "tanh"
    again = _restored(layer)
    assert (again.units, again.scale, again.name) == (2, 1.0, "outer")
    assert again.activation is keras.activations.tanh
    assert again.inner.get_config() == inner.get_config()
    assert again.dtype_policy.name == "mixed_bfloat16"
    assert again.get_config() == layer.get_config()


def test_arguments_of_parents_and_other_values():
    config = Child(0.5, activation="gelu").get_config()
    own = {name: config[name] for name in ("rate", "activation", "scale")}
    assert own == {"rate": 0.5, "activation": "gelu", "scale": 2.0}


def test_a_class_may_store_its_arguments_itself():
    class Own(Outer):
        def __init__(self, size, **kwargs):
            super().__init__(1, **kwargs)
            self._size = size

        def get_config(self):
            return {**super().get_config(), "size": self._size}

    assert Own(7).get_config()["size"] == 7


def test_an_argument_that_is_not_kept_is_named():
    class Forgetful(Outer):
        def __init__(self, units, secret, **kwargs):
            super().__init__(units, **kwargs)

    with pytest.raises(AttributeError, match="`Forgetful` must keep .*`secret`"):
        Forgetful(1, 2).get_config()
