"""Configs that follow from constructors, so that no argument is written twice."""

import inspect

import keras


class ArgumentsConfig:
    """Mixin of layers and preprocessors that keep their arguments as attributes.

    The config has every argument of the constructors of a class and of its parents, with
    the value of the attribute of the same name. An argument of a parent without such an
    attribute is one that the class gives it. A class that defines `get_config` itself
    adds its own arguments there.
    """

    @property
    def stored_arguments(self):
        """Dict of arguments with another value than their attributes, serialized."""
        return {}

    def get_config(self):
        config = getattr(super(), "get_config", dict)()
        stored = self.stored_arguments
        for name in _own_arguments(type(self)):
            if name in stored:
                config[name] = stored[name]
            elif hasattr(self, name):
                config[name] = _serialized(getattr(self, name))
            elif name in inspect.signature(type(self).__init__).parameters:
                raise AttributeError(
                    f"`{type(self).__name__}` must keep its argument `{name}` as an "
                    "attribute of this name, or add it to the config in `get_config`. "
                    "Received: no such attribute. Set it in `__init__`."
                )
        return config

    @classmethod
    def from_config(cls, config):
        config = {name: _restored(name, value) for name, value in config.items()}
        parent = getattr(super(), "from_config", None)
        return cls(**config) if parent is None else parent(config)


def _own_arguments(cls):
    """Returns the names of the arguments that the classes do not store themselves."""
    names = {}
    for parent in reversed(cls.__mro__[: cls.__mro__.index(ArgumentsConfig)]):
        if {"__init__", "get_config"} & vars(parent).keys() != {"__init__"}:
            continue
        for name, parameter in inspect.signature(parent.__init__).parameters.items():
            kind = parameter.kind
            if name != "self" and kind not in (kind.VAR_POSITIONAL, kind.VAR_KEYWORD):
                names[name] = None
    return names


def _serialized(value):
    if isinstance(value, (keras.layers.Layer, keras.initializers.Initializer, dict)):
        return keras.saving.serialize_keras_object(value)
    return keras.activations.serialize(value) if callable(value) else value


def _restored(name, value):
    # What Keras restores itself, and what is set on built layers only.
    is_dict = isinstance(value, dict) and name not in ("dtype", "inner_settings")
    return restored_argument(value) if is_dict else value


def restored_argument(value, custom_objects=None):
    """Returns an argument from its config, in which layers are not built.

    The layer that has the argument builds it, as it does when it is new: so the paths of
    weights are the same in a loaded model.
    """
    value = _without_build_config(value)
    return keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)


def _without_build_config(value):
    if not isinstance(value, dict):
        return value
    if "class_name" in value:
        return {k: v for k, v in value.items() if k != "build_config"}
    return {k: _without_build_config(v) for k, v in value.items()}
