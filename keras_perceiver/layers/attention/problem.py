"""Description of an attention problem, from which a kernel is chosen."""

from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class Problem:
    """Properties of an attention call that determine the kernel.

    Args:
        backend: String, `"jax"`, `"tensorflow"` or `"torch"`.
        device: String, `"cpu"`, `"gpu"` or `"tpu"`.
        dtype: String, dtype of the queries and of the result.
        num_heads: Integer.
        num_queries: Integer, or `None` if it is unknown while the model is traced.
        num_inputs: Integer, or `None` if it is unknown while the model is traced.
        qk_head_dim: Integer, width of queries and keys per head.
        v_head_dim: Integer, width of values per head.
        has_mask: Boolean, whether there is an `inputs_mask`.
        has_scale: Boolean, whether there is an `inputs_scale`.
        is_causal: Boolean.
        is_portable: Boolean, whether the model is traced for another runtime: a
            SavedModel, ONNX or a serialized program.
    """

    backend: str
    device: str
    dtype: str
    num_heads: int
    num_queries: int | None
    num_inputs: int | None
    qk_head_dim: int
    v_head_dim: int
    has_mask: bool = False
    has_scale: bool = False
    is_causal: bool = False
    is_portable: bool = False

    @property
    def num_scores(self):
        """Scores per example, or `None` if a length is unknown."""
        if self.num_queries is None or self.num_inputs is None:
            return None
        return self.num_heads * self.num_queries * self.num_inputs


@dataclass(frozen=True)
class PerDevice:
    """A number for each kind of device.

    Args:
        cpu: Integer.
        gpu: Integer.
        tpu: Integer.
    """

    cpu: int
    gpu: int
    tpu: int


def length_or_none(length):
    """Returns a length as an integer, or `None` if it is symbolic."""
    return length if isinstance(length, int) else None


def device_of(tensor):
    """Returns the device type of a tensor: `"cpu"`, `"gpu"` or `"tpu"`.

    While a program is traced, this is the default device. Backend-specific path.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        # "meta" is the device of tensors without data.
        return {"cpu": "cpu", "meta": "cpu", "xla": "tpu"}.get(
            tensor.device.type, "gpu"
        )
    if backend == "jax":
        import jax

        if isinstance(tensor, jax.core.Tracer):
            name = jax.default_backend()
        else:
            name = next(iter(tensor.devices())).platform
        return name if name in ("cpu", "tpu") else "gpu"
    import tensorflow as tf

    for kind in ("TPU", "GPU"):
        if kind in tensor.device or (
            not tensor.device and tf.config.list_logical_devices(kind)
        ):
            return kind.lower()
    return "cpu"


def is_exported(*tensors):
    """Returns whether a program is traced for an export. Backend-specific path.

    This is unknown on TensorFlow, where all kernels can be exported.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        # Exports have symbolic sizes. In a program that runs here, all sizes are known.
        return not all(isinstance(n, int) for x in tensors for n in x.shape)
    if backend == "torch":
        import torch

        # Until PyTorch 2.11, `is_exporting` is also true of what dynamo compiles. It is
        # not involved in the exports of Keras, which are not strict.
        is_compiled = torch.compiler.is_dynamo_compiling()
        return torch.jit.is_tracing() or (
            torch.compiler.is_exporting() and not is_compiled
        )
    return False
