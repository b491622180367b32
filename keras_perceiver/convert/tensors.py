"""Tensors of a published model and the variables of ours: one by one, or not at all."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from keras_perceiver.models.handles import fit_fix


def _same(array):
    return array


class Pair(NamedTuple):
    """A tensor of a source, and the variable of a model that holds the same numbers.

    Attributes:
        name: String, the name of the tensor.
        variable: `keras.Variable`.
        to_keras: Callable from the source's array to that of the variable.
        to_source: Callable, its inverse.
    """

    name: str
    variable: Any
    to_keras: Callable = _same
    to_source: Callable = _same

    @property
    def source_shape(self):
        """The shape of the tensor in the source."""
        # Without its numbers: only strides change.
        shape = tuple(self.variable.shape)
        return self.to_source(np.broadcast_to(np.float32(0), shape)).shape


def transposed(name, variable):
    """Returns the `Pair` of a kernel that the source stores as `(outputs, inputs)`."""
    return Pair(name, variable, np.transpose, np.transpose)


def permuted(name, variable, axes):
    """Returns the `Pair` of an array whose axes the source has in another order.

    Args:
        name: String.
        variable: `keras.Variable`.
        axes: Tuple of integers, the axes of the source in the order of the variable's.
    """
    inverse = tuple(int(axis) for axis in np.argsort(axes))
    return Pair(
        name,
        variable,
        lambda array: np.transpose(array, axes),
        lambda array: np.transpose(array, inverse),
    )


def reshaped(name, variable, shape):
    """Returns the `Pair` of an array that the source has in another shape."""
    own = tuple(variable.shape)
    return Pair(
        name,
        variable,
        lambda array: np.reshape(array, own),
        lambda array: np.reshape(array, shape),
    )


def load_tensors(model, pairs, source, ignored=(), overrides=None):
    """Sets all variables of a model to the tensors of a source.

    Everything is compared before anything is set.

    Args:
        model: Keras model.
        pairs: Sequence of `Pair`s.
        source: Mapping with `shape(name)` from names to arrays, such as a
            `SafetensorsFolder`.
        ignored: Collection of strings, tensors of the source that are not needed.
        overrides: Mapping of arguments with which the model differs from its
            configuration, for errors, or `None`.

    Raises:
        ValueError: if the source lacks a tensor, has one that is not used, or has one of
            another shape, of integers, or with NaN or infinity.
    """
    fix = "Get the files of the model again, or correct its configuration."
    fix = fit_fix(overrides, fix)
    expected = {pair.name: pair for pair in pairs}
    found = set(source) - set(ignored)
    missing, surplus = sorted(set(expected) - found), sorted(found - set(expected))
    if missing or surplus:
        raise ValueError(
            f"The weights in {source} must be those of the model that their "
            f"configuration describes. Missing: {_some(missing)}. Without a place in the "
            f"model: {_some(surplus)}. {fix}"
        )
    wrong = [
        f"{name}: {tuple(source.shape(name))}, expected {pair.source_shape}"
        for name, pair in expected.items()
        if tuple(source.shape(name)) != pair.source_shape
    ]
    if wrong:
        raise ValueError(
            f"The weights in {source} must have the shapes of the model that their "
            f"configuration describes. Received: {_some(wrong, '; ')}. {fix}"
        )
    bad = [name for name in expected if not _is_finite(source[name])]
    if bad:
        raise ValueError(
            f"The weights in {source} must be finite floats. Received: NaN, infinity or "
            f"integers in {_some(sorted(bad))}. Get the files of the model again."
        )
    _check_covers(model, pairs)
    for name, pair in expected.items():
        pair.variable.assign(pair.to_keras(np.asarray(source[name], "float32")))


def _is_finite(array):
    # The kind of bfloat16 is not "f".
    return array.dtype.kind not in "biuc" and np.isfinite(array.astype("float32")).all()


def tensors_of(pairs):
    """Returns a dict of contiguous float32 arrays, what `load_tensors` would read."""
    return {
        pair.name: np.ascontiguousarray(
            pair.to_source(np.asarray(pair.variable.numpy(), "float32"))
        )
        for pair in pairs
    }


def _check_covers(model, pairs):
    """Raises `RuntimeError` unless every variable of a model is in one pair."""
    ids = [id(pair.variable) for pair in pairs]
    own = {id(w): w.path for w in model.weights if "seed_generator" not in w.path}
    left = sorted(path for key, path in own.items() if ids.count(key) != 1)
    if left or len(ids) != len(own):
        raise RuntimeError(
            f"Each variable must come from one tensor. These do not: {_some(left)}."
        )


def _some(names, separator=", "):
    if not names:
        return "none"
    text = separator.join(names[:8])
    return text if len(names) <= 8 else f"{text} and {len(names) - 8} more"
