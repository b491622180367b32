"""Argument checks whose errors state the rule, what was received, and the fix."""

import collections
import collections.abc
import difflib
import numbers
import os
import warnings

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
"""Dtype policies of recipes."""


def check_positive(**arguments):
    """Raises `ValueError` unless every argument is an integer of at least 1."""
    for name, value in arguments.items():
        is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not is_integer or value < 1:
            raise ValueError(
                f"`{name}` must be a positive integer. Received: {name}={value!r}. "
                f"Set `{name}` to 1 or more."
            )


def as_shape(shape):
    """Returns a shape as a tuple, of which a number alone is the only size."""
    is_iterable = isinstance(shape, collections.abc.Iterable)
    return tuple(shape) if is_iterable else (shape,)


def check_grid(grid):
    """Returns a grid as a tuple, after a check that it is one of positive integers."""
    if isinstance(grid, str) or not isinstance(grid, collections.abc.Iterable):
        raise TypeError(
            "`grid` must be a tuple of integers, one per axis. Received: "
            f"grid={grid!r} of type {type(grid).__name__}. For one axis, write `(8,)`."
        )
    grid = tuple(grid)
    check_positive(**{f"grid[{i}]": n for i, n in enumerate(grid)})
    return grid


def check_backend_variable(backend):
    """Warns if `KERAS_BACKEND` is not the backend of Keras, as if it was set too late.

    Args:
        backend: String, the backend of Keras.
    """
    chosen = os.environ.get("KERAS_BACKEND")
    if chosen and chosen != backend:
        warnings.warn(
            "`KERAS_BACKEND` must be set before Keras is imported. Received: "
            f"KERAS_BACKEND={chosen!r}, while Keras uses {backend!r}. Set it before all "
            "imports, or in the shell, and restart Python.",
            stacklevel=3,
        )


def check_divisible(divisor_name, divisor, **widths):
    """Raises `ValueError` unless every width is a multiple of the divisor."""
    for name, width in widths.items():
        if width % divisor:
            raise ValueError(
                f"`{name}` must be divisible by `{divisor_name}`. Received: "
                f"{name}={width}, {divisor_name}={divisor}. "
                f"Set `{name}` to a multiple of {divisor}."
            )


def check_fraction(**arguments):
    """Raises `ValueError` unless every argument is in [0, 1)."""
    for name, value in arguments.items():
        if not isinstance(value, numbers.Real) or not 0 <= value < 1:
            raise ValueError(
                f"`{name}` must be a number in [0, 1). Received: {name}={value!r}. "
                f"Set `{name}` to 0.0 to switch it off."
            )


def check_rank(name, shape, rank, layout):
    """Raises `ValueError` unless `shape` has `rank` dimensions, the last one known."""
    if len(shape) != rank or shape[-1] is None:
        raise ValueError(
            f"`{name}` must have shape `{layout}` with a known last dimension. "
            f"Received: {name}.shape={tuple(shape)}. "
            f"Reshape `{name}` to {rank} dimensions."
        )


def check_ordered(argument, names):
    """Raises `TypeError` unless names are an ordered collection, such as a list."""
    # A string is a sequence of characters, and a dict is not ordered by its values.
    no_order = (str, bytes, collections.abc.Mapping, collections.abc.Set)
    is_ordered = isinstance(names, collections.abc.Iterable)
    if not is_ordered or isinstance(names, no_order):
        raise TypeError(
            f"`{argument}` must be a sequence of strings in the order of the labels. "
            f"Received: {argument}={names!r} of type {type(names).__name__}. Pass a list."
        )


def check_names(argument, names):
    """Returns names as a tuple, after a check that they are unique strings in order.

    Raises:
        TypeError: if they have no order, as in a set, or if one is not a string.
        ValueError: if a name is repeated.
    """
    check_ordered(argument, names)
    names = tuple(names)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(
                f"`{argument}` must be strings. Received: {name!r} of type "
                f"{type(name).__name__}. Pass `[str(name) for name in {argument}]`."
            )
    again = [name for name, n in collections.Counter(names).items() if n > 1]
    if again:
        raise ValueError(
            f"`{argument}` must be unique. Received: {again[:20]} more than once. Give "
            "each class its own name."
        )
    return tuple(map(str, names))  # NumPy strings to Python's


def check_choice(name, value, valid):
    """Raises `ValueError` unless a value is valid. The error suggests the nearest one.

    Args:
        name: String, the argument as the error names it, such as "`recipe`".
        value: String.
        valid: Sequence of strings.
    """
    if value not in valid:
        raise ValueError(
            f"{name} must be one of {', '.join(valid)}. Received: {value!r}. "
            f"{nearest(value, valid) or 'Choose one of them.'}"
        )


def nearest(value, valid):
    """Returns a question with the nearest valid string, or `""` if none is near."""
    found = difflib.get_close_matches(str(value), valid, n=1, cutoff=0.7)
    return f"Did you mean {found[0]!r}?" if found else ""


def not_defined(instance, kind, name, value):
    """Returns the error of a method or property that a subclass must define.

    Args:
        instance: Instance of the subclass.
        kind: String, the kind of the base class, with its article.
        name: String, name of the method or property.
        value: String, what it must return.
    """
    return NotImplementedError(
        f"{kind[0].upper()}{kind[1:]} must define `{name}`. Received: "
        f"{type(instance).__name__} without it. Define it to return {value}."
    )
