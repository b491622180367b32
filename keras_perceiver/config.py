"""Descriptions of objects by class and arguments, with overrides by dotted paths."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

_VARIADIC = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


class Config:
    """A class or function with the arguments that it will be called with.

    Presets, recipes and hyperparameters describe models by configs, which can be
    printed, compared, written to files and changed before anything is built. Arguments
    may be configs themselves, Keras layers without weights, and dicts of these. Every
    call creates a new object: nested configs are called, and layers are cloned by their
    own config.

    Reference:
        A small version of `Config` in [Fiddle](https://github.com/google/fiddle).

    Args:
        cls: Class or function.
        **kwargs: Arguments of `cls`. Others keep their defaults or are passed in the
            call.

    Attributes:
        cls: Class or function.
        kwargs: Dict of the arguments.

    Call arguments:
        **more: Additional arguments, which are passed on unchanged.

    Returns:
        The object that `cls` returns.

    Raises:
        TypeError: if `cls` cannot be called.
        ValueError: if `cls` has no such argument, if a layer has weights already, or,
            in a call, if `cls` rejects the arguments.

    Example:

    >>> config = Config(keras.layers.Dense, units=4, activation="relu")
    >>> config.replace({"units": 8}).kwargs["units"]
    8
    >>> tuple(config()(keras.ops.ones((2, 3))).shape)
    (2, 4)
    """

    def __init__(self, cls: Callable, /, **kwargs: Any) -> None:
        if not callable(cls):
            raise TypeError(
                "`cls` must be a class or a function. Received: "
                f"cls={cls!r}. Pass the class, and its arguments by name."
            )
        valid = _valid_names(cls)
        for name, value in kwargs.items():
            if valid is not None and name not in valid:
                raise _unknown(name, name, value, f"`{_name(cls)}`", valid)
            _check_without_weights(name, value)
        self._cls = cls
        self._kwargs = kwargs

    @property
    def cls(self):
        return self._cls

    @property
    def kwargs(self):
        return dict(self._kwargs)

    def __call__(self, **more):
        kwargs = {name: _built(value) for name, value in self._kwargs.items()}
        kwargs |= more
        try:
            return self._cls(**kwargs)
        except TypeError as error:
            received = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
            raise ValueError(
                f"`{_name(self._cls)}` must be called with valid arguments. Received: "
                f"{received}. Correct them: {error}"
            ) from error

    def accepts(self, name):
        """Returns whether the signature of `cls` has an argument of this name."""
        return name in _arguments(self._cls)[0]

    def replace(self, overrides):
        """Returns a new config with some arguments replaced.

        Args:
            overrides: Mapping from dotted paths to values, for example
                `{"num_latents": 64, "modality.num_bands": 32}`. A path goes through
                configs, dicts and Keras objects such as layers. Later paths apply to
                the values of earlier ones. A layer is recreated once with all its new
                values.

        Returns:
            `Config`.

        Raises:
            ValueError: if a path does not exist. The error suggests the nearest paths.

        Example:

        >>> schedule = Config(
        ...     keras.optimizers.schedules.CosineDecay,
        ...     initial_learning_rate=1e-3,
        ...     decay_steps=100,
        ... )
        >>> config = Config(keras.optimizers.SGD, learning_rate=schedule)
        >>> config.replace({"learning_rate.alpha": 0.1}).kwargs["learning_rate"]
        Config(CosineDecay, initial_learning_rate=0.001, decay_steps=100, alpha=0.1)
        """
        changes = [(path.split("."), value, path) for path, value in overrides.items()]
        return _replaced(self, changes, (), self) if changes else self

    def paths(self):
        """Returns a dict from the dotted path of every argument to its value.

        Arguments with neither a value nor a default are omitted. Configs, dicts and
        Keras objects are listed by their arguments, but can be replaced as a whole as
        well.
        """
        return dict(_leaves(self, ()))

    def description(self):
        """Returns the class path and the arguments as JSON-serializable values."""
        return describe(self)

    def __eq__(self, other):
        if not isinstance(other, Config):
            return NotImplemented
        return self._cls is other._cls and describe(self) == describe(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self):
        arguments = [f"{name}={value!r}" for name, value in self._kwargs.items()]
        return f"Config({', '.join([_name(self._cls), *arguments])})"


def _name(cls):
    return getattr(cls, "__qualname__", None) or repr(cls)


def _path(cls):
    return f"{getattr(cls, '__module__', '')}.{_name(cls)}".lstrip(".")


@functools.lru_cache(256)
def _arguments(cls):
    """Returns a dict of all arguments and their defaults, and whether it takes others.

    Arguments without a default have `inspect.Parameter.empty`.
    """
    if not inspect.isclass(cls):
        return _signature(cls)
    arguments = {}
    # Arguments that a class does not declare are those of its parents.
    for parent in cls.__mro__:
        if parent is keras.Model:
            return {"name": None, "trainable": True} | arguments, False
        if "__init__" not in vars(parent):
            continue
        own, takes_others = _signature(parent.__init__)
        own.pop("self", None)
        arguments |= {k: v for k, v in own.items() if k not in arguments}
        if not takes_others or parent is keras.layers.Layer:
            break
    return arguments, not arguments


def _signature(function):
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some builtins have no signature
        return {}, True
    variadic = [p.kind for p in parameters if p.kind in _VARIADIC]
    arguments = {p.name: p.default for p in parameters if p.kind not in _VARIADIC}
    return arguments, inspect.Parameter.VAR_KEYWORD in variadic


def _valid_names(cls):
    """Returns the names of all arguments, or `None` if any name is valid."""
    arguments, takes_others = _arguments(cls)
    return None if takes_others else list(arguments)


def _defaults(cls):
    arguments, _ = _arguments(cls)
    empty = inspect.Parameter.empty
    return {name: value for name, value in arguments.items() if value is not empty}


def _is_keras_object(value):
    """Returns whether a value is a Keras object with a config of its own."""
    return (
        hasattr(value, "get_config")
        and hasattr(value, "from_config")
        and not inspect.isclass(value)
        and not isinstance(value, keras.dtype_policies.DTypePolicy)
    )


def _check_without_weights(name, value):
    if isinstance(value, Mapping):
        for key, entry in value.items():
            _check_without_weights(f"{name}.{key}", entry)
    elif isinstance(value, keras.layers.Layer) and value.weights:
        raise ValueError(
            "A layer in a `Config` must not have weights yet, since every call of the "
            f"config clones it. Received: {name}={value!r}, which is built. Pass a new "
            "layer."
        )


def _built(value):
    if isinstance(value, Config):
        return value()
    if isinstance(value, Mapping):
        return {key: _built(entry) for key, entry in value.items()}
    if _is_keras_object(value):
        return type(value).from_config(value.get_config())
    return value


def _children(value):
    """Returns a dict of the children of a value, or `None` for a leaf."""
    if isinstance(value, Config):
        return {**_defaults(value.cls), **value.kwargs}
    if isinstance(value, Mapping):
        return value
    is_leaf = isinstance(value, keras.initializers.Initializer)  # set as a whole
    if _is_keras_object(value) and not is_leaf:
        return _deserialized(value.get_config())
    return None


def _leaves(value, path):
    children = _children(value)
    if children is None:
        if isinstance(value, keras.dtype_policies.DTypePolicy):
            value = value.name
        yield ".".join(path), value
        return
    for name, child in children.items():
        yield from _leaves(child, (*path, str(name)))


def _replaced(target, changes, parents, root):
    """Returns `target` with some values replaced.

    Args:
        target: Config, mapping or Keras object.
        changes: List of names that lead from `target` to a value, the value, and the
            whole path.
        parents: Tuple of the names that lead to `target`.
        root: Config at which the paths start.
    """
    children, parent = _children(target), ".".join(parents)
    new, later, paths = {}, {}, {}
    for (name, *rest), value, path in changes:
        if children is None:
            raise ValueError(
                "A path must go through configs, dicts and layers. Received: "
                f"{path!r}, where {parent!r} is {target!r}. Override {parent!r} as a "
                "whole."
            )
        valid = [str(key) for key in children]
        if isinstance(target, Config):
            valid = _valid_names(target.cls)
        if valid is not None and name not in valid:
            owner = (
                f"`{parent}`" if isinstance(target, Mapping) else _class_name(target)
            )
            raise _unknown(path, name, value, owner, valid, parent, root)
        paths[path] = value
        if rest:
            later.setdefault(name, []).append((rest, value, path))
        else:
            new[name] = value
            later.pop(name, None)
    for name, those in later.items():
        child = new.get(name, children.get(name))
        new[name] = _replaced(child, those, (*parents, name), root)
    if isinstance(target, Config):
        return Config(target.cls, **{**target.kwargs, **new})
    if isinstance(target, Mapping):
        return {key: new.get(str(key), child) for key, child in target.items()}
    config = {k: _serialized(v) for k, v in new.items()}
    try:
        return type(target).from_config({**target.get_config(), **config})
    except (TypeError, ValueError) as error:
        # Keras wraps the errors of constructors in a `TypeError`.
        cause = error.__context__ or error
        received = ", ".join(f"{path}={value!r}" for path, value in paths.items())
        raise ValueError(
            f"`{type(target).__name__}` must be created with valid arguments. Received: "
            f"{received}. Correct them: {cause}"
        ) from error


def _class_name(value):
    cls = value.cls if isinstance(value, Config) else type(value)
    return f"`{_name(cls)}`"


# What models give to their base classes.
_INTERNAL = ("inner_settings", "inputs", "outputs")


def _unknown(path, name, value, owner, valid, parent="", root=None):
    """Returns the error for an unknown name, with the nearest valid ones."""
    prefix = f"{parent}." if parent else ""
    valid = [each for each in valid if each not in _INTERNAL]
    near = []
    if root is not None:  # the name may exist elsewhere
        near = [p for p in root.paths() if p.split(".")[-1] == name]
    near += [prefix + match for match in difflib.get_close_matches(name, valid)]
    fix = (
        f"Did you mean {' or '.join(repr(p) for p in near[:3])}?"
        if near
        else f"Choose one of {', '.join(valid)}."
    )
    return ValueError(
        f"A name must be an argument of {owner}. Received: {path}={value!r}. {fix}"
    )


def _serialized(value):
    """Returns a value as it is in the config of a Keras object."""
    if isinstance(value, Config):
        value = value()
    if _is_keras_object(value):
        return keras.saving.serialize_keras_object(value)
    if isinstance(value, Mapping):
        return {key: _serialized(entry) for key, entry in value.items()}
    return value


def _deserialized(value):
    """Returns a value from the config of a Keras object as the constructor takes it."""
    if not isinstance(value, dict):
        return value
    if {"class_name", "config", "module"} <= value.keys():
        return keras.saving.deserialize_keras_object(value)
    return {key: _deserialized(entry) for key, entry in value.items()}


def describe(value: Any) -> Any:
    """Returns a value as a JSON-serializable one, classes and functions as their paths."""
    if isinstance(value, Config):
        return _described(value.cls, value.kwargs)
    if isinstance(value, keras.dtype_policies.DTypePolicy):
        return value.name
    if _is_keras_object(value):
        # Keras numbers the names of layers without one, so names carry no information.
        config = _deserialized(value.get_config())
        config = {k: v for k, v in config.items() if k != "name"}
        return _described(type(value), config)
    if isinstance(value, Mapping):
        return {str(key): describe(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [describe(entry) for entry in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return _path(value) if callable(value) else repr(value)


def _described(cls, arguments):
    return {
        "class": _path(cls),
        "arguments": {name: describe(value) for name, value in arguments.items()},
    }
