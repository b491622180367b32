"""The table of kernels: which one serves which problem, and why."""

import contextlib

import keras

from keras_perceiver.layers.attention.chunked import Chunked
from keras_perceiver.layers.attention.jax_fused import JaxFused
from keras_perceiver.layers.attention.plain import Plain
from keras_perceiver.layers.attention.problem import PerDevice
from keras_perceiver.layers.attention.torch_fused import TorchFused

# The first kernel that supports a problem serves.
KERNELS = (
    # PyTorch's own kernel stores no scores, and is the fastest on PyTorch, up to four
    # times on a CPU. Scaled copies of the inputs make it slower there in training than
    # chunks are; on a GPU chunks are worse, for PyTorch runs their loop in Python. A
    # causal mask of 16 MiB serves 2,048 latents that read 8,192 inputs.
    TorchFused(devices_with_scale=("gpu", "tpu"), max_causal_mask=2**24),
    # cuDNN's kernel stores no scores. Only GPUs have it.
    JaxFused(),
    # Few scores are fastest all at once. More of them per example would be most of the
    # memory of training. CPU: measured. GPU, TPU: 16 MiB per example, a small part of
    # their memory; an estimate.
    Plain(max_scores=PerDevice(cpu=2**20, gpu=2**22, tpu=2**22)),
    # Memory linear in the number of inputs.
    Chunked(),
    # Lengths that cannot be cut into chunks: symbolic ones of JAX, traced ones of torch.
    Plain(),
)

# Kernels without the limits that the table gives them.
_BY_NAME = {kernel.name: type(kernel)() for kernel in KERNELS}

# What the active `use_kernel` and `use_portable_kernels` ask for, the innermost last. It
# holds for all threads: replicas of a `tf.distribute` strategy are traced in threads of
# their own, which inherit no context variables.
_overrides = []
_portable_scopes = []


def choose(problem):
    """Returns the kernel of the table that serves a problem."""
    allows_fused = keras.config.is_flash_attention_enabled() is not False
    for kernel in KERNELS:
        if kernel.is_fused and not allows_fused:
            continue
        if kernel.supports(problem):
            return kernel
    raise AssertionError(f"the last kernel supports everything: {problem}")


def resolve(kernel, problem):
    """Returns the kernel that an argument, the context or the table asks for.

    Args:
        kernel: Kernel, name of one, or `None`.
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
def use_kernel(kernel):
    """Makes all attention that is called or traced inside use one kernel.

    For tests, benchmarks and comparisons: a model that was traced before, such as one that
    has predicted already, keeps its kernels. It holds for all threads.

    Args:
        kernel: Kernel, such as `Chunked(chunk_size=1024)`, the name of one, such as
            `"plain"`, or `None` for the choice of the table.

    Raises:
        ValueError: if a name is unknown. `attend` raises one if the kernel does not
            support its arguments.

    Example:

    >>> query, inputs = keras.random.normal((2, 5, 8)), keras.random.normal((2, 100, 8))
    >>> with use_kernel("plain"):
    ...     outputs = attend(query, inputs, inputs)
    """
    with _pushed(_overrides, as_kernel(kernel)):
        yield


@contextlib.contextmanager
def use_portable_kernels():
    """Makes all attention that is traced inside fit to be exported.

    Exports of PyTorch, and those of JAX with an unknown size, are recognized without it.
    """
    with _pushed(_portable_scopes, True):
        yield


def is_portable():
    """Tells whether `use_portable_kernels` is active."""
    return bool(_portable_scopes)


@contextlib.contextmanager
def _pushed(stack, value):
    """Keeps a value at the end of a stack, from which another thread may pop its own."""
    entry = [value]
    stack.append(entry)
    try:
        yield
    finally:
        stack[:] = [x for x in stack if x is not entry]
