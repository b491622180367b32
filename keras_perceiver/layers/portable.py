"""Programs that are traced for another runtime, which has neither Python nor gradients."""

import contextlib
from collections.abc import Iterator

from keras import ops

# One entry per active `use_portable_kernels`.
_scopes: list = []


@contextlib.contextmanager
def use_portable_kernels() -> Iterator[None]:
    """Context in which a model is traced so that it can be exported.

    Exports from PyTorch, and from JAX with an unknown size, are detected without it.
    """
    with pushed(_scopes, True):
        yield


def is_portable():
    """Returns whether `use_portable_kernels` is active."""
    return bool(_scopes)


def custom_gradient(function):
    """Returns `keras.ops.custom_gradient(function)`, or the function alone for an export.

    TensorFlow warns about each custom gradient that a loaded program lacks.

    Args:
        function: Callable that returns its result and a function for the gradient.
    """
    if is_portable():
        return lambda *tensors: function(*tensors)[0]
    return ops.custom_gradient(function)


@contextlib.contextmanager
def pushed(stack, value):
    """Keeps a value on a stack that all threads share.

    Replicas of a `tf.distribute` strategy are traced in separate threads, which do not
    inherit context variables.
    """
    entry = [value]
    stack.append(entry)
    try:
        yield
    finally:
        stack[:] = [x for x in stack if x is not entry]
