"""The table of kernels: which kernel is used for which problem, and why."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_perceiver.layers.attention.chunked import Chunked
from keras_perceiver.layers.attention.jax_fused import JaxFused
from keras_perceiver.layers.attention.plain import Plain
from keras_perceiver.layers.attention.problem import PerDevice
from keras_perceiver.layers.attention.torch_fused import TorchFused
from keras_perceiver.layers.portable import pushed

KERNELS = (
    # PyTorch's own kernel stores no scores and is the fastest on PyTorch, by up to four
    # times on CPU. Scaled copies of the inputs make it slower in training than chunks
    # on CPU. On an H100 chunks need twice its memory then. Its backward pass for heads
    # wider than 256 takes twice the time there of that with all scores, in a sixth of
    # the memory. A causal mask of 16 MiB is that of 2,048 latents and 8,192 inputs.
    TorchFused(devices_with_scale=("gpu", "tpu"), max_causal_mask=2**24),
    # cuDNN's kernel stores no scores. It needs a GPU.
    JaxFused(),
    # A small number of scores is fastest to compute at once. More scores per example
    # would dominate the memory of training. CPU: measured. GPU: 16 MiB per example,
    # where chunks are as fast on an H100. TPU: as on GPU (estimated).
    Plain(max_scores=PerDevice(cpu=2**20, gpu=2**22, tpu=2**22)),
    # Memory linear in the number of inputs.
    Chunked(),
    # For lengths that cannot be chunked: symbolic ones on JAX, traced ones on PyTorch.
    Plain(),
)
"""The table of kernels: the first one that supports a problem is used."""

# Kernels without the limits of the table.
_BY_NAME = {kernel.name: type(kernel)() for kernel in KERNELS}

# Kernels of the active `use_kernel`, the innermost last.
_overrides: list = []


def choose(problem):
    """Returns the first kernel of the table that supports a problem."""
    allows_fused = keras.config.is_flash_attention_enabled() is not False
    for kernel in KERNELS:
        if kernel.is_fused and not allows_fused:
            continue
        if kernel.supports(problem):
            return kernel
    raise AssertionError(f"the last kernel supports everything: {problem}")


def resolve(kernel, problem):
    """Returns the kernel of an argument, the context or the table, in this order.

    Args:
        kernel: Kernel, name of a kernel, or `None`.
        problem: `Problem`.
    """
    if kernel is None and _overrides:
        kernel = _overrides[-1][0]
    kernel = as_kernel(kernel)
    if kernel is None:
        return choose(problem)
    if not kernel.supports(problem):
        raise ValueError(
            f"The kernel must support the attention problem. Received: kernel={kernel}, "
            f"which needs {kernel.needs}, and {problem}. Use another kernel, or "
            "kernel=None for the one that the table chooses."
        )
    return kernel


def as_kernel(kernel):
    """Returns a kernel from a kernel or its name."""
    if not isinstance(kernel, str):
        return kernel
    if kernel not in _BY_NAME:
        raise ValueError(
            f"A kernel's name must be one of {sorted(_BY_NAME)}. Received: "
            f"kernel={kernel!r}. Use one of them, or a kernel such as "
            "Chunked(chunk_size=1024)."
        )
    return _BY_NAME[kernel]


@contextlib.contextmanager
def use_kernel(kernel: Any) -> Iterator[None]:
    """Context in which all attention that is called or traced uses a kernel.

    It is for tests, benchmarks and comparisons, and applies to all threads. A model
    that was traced before, for example by `predict`, keeps its kernels.

    Args:
        kernel: Kernel, such as `Chunked(chunk_size=1024)`, name of a kernel, such as
            `"plain"`, or `None` to use the table.

    Raises:
        ValueError: if a name is unknown. `attend` raises `ValueError` if the kernel
            does not support its arguments.

    Example:

    >>> query, inputs = keras.random.normal((2, 5, 8)), keras.random.normal((2, 100, 8))
    >>> with use_kernel("plain"):
    ...     outputs = attend(query, inputs, inputs)
    """
    with pushed(_overrides, as_kernel(kernel)):
        yield
