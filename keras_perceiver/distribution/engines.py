"""The engines of each backend, and the devices that they need."""

from __future__ import annotations

import functools
import json
import os

import keras

from keras_perceiver._checks import check_positive
from keras_perceiver.distribution import processes
from keras_perceiver.layers.layouts import LAYOUTS

ENGINES = ("auto", "none", "mirrored", "tpu", "data_parallel", "model_parallel")
"""How a model is distributed: arguments of `Distribution`."""
BACKENDS = {
    "mirrored": "tensorflow",
    "tpu": "tensorflow",
    "data_parallel": "jax",
    "model_parallel": "jax",
}


def virtual_devices(number: int) -> None:
    """Splits the CPU into several devices, to test programs for several devices.

    Call it before TensorFlow or JAX compute anything. The devices share the cores, so
    nothing gets faster.

    Args:
        number: Integer, number of devices.

    Raises:
        ValueError: if `number` is not positive, or if the backend has no virtual devices.
        RuntimeError: if the backend has been initialized already.
    """
    check_positive(number=number)
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        jax.config.update("jax_num_cpu_devices", number)
    elif backend == "tensorflow":
        tf = _tensorflow()
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * number,
        )
    else:
        raise ValueError(
            "Virtual devices exist on TensorFlow and JAX only. Received: "
            f"KERAS_BACKEND={backend}. Set it to tensorflow or jax."
        )


def _tensorflow():
    import tensorflow as tf

    return tf


def check_engine(engine):
    if engine not in ENGINES:
        raise ValueError(
            f"`engine` must be one of {ENGINES}. Received: engine={engine!r}. Choose one "
            "of them."
        )
    backend = keras.backend.backend()
    if backend == "tensorflow":
        _check_no_workers()
    wanted = BACKENDS.get(engine, backend)
    if wanted != backend:
        others = [name for name, of in BACKENDS.items() if of == backend]
        fix = f"Set KERAS_BACKEND={wanted}"
        if others:
            fix += f", or choose one of {others}"
        if backend == "torch":
            fix += (
                "; Keras 3.15 has no distribution on torch. The saved model is the same"
            )
        raise ValueError(
            f"The engine {engine!r} needs the backend {wanted}. Received: "
            f"KERAS_BACKEND={backend}. {fix}."
        )


def _check_no_workers():
    """Rejects `MultiWorkerMirroredStrategy`, under which `fit` of Keras 3.15 fails."""
    try:
        cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    except json.JSONDecodeError as error:
        raise ValueError(
            f"TF_CONFIG must be JSON. Received: {os.environ['TF_CONFIG']!r}. Unset it."
        ) from error
    workers = [*cluster.get("chief", []), *cluster.get("worker", [])]
    if len(workers) > 1:
        raise ValueError(
            "Training on several machines needs JAX: `fit` under TensorFlow's "
            "MultiWorkerMirroredStrategy fails in Keras 3.15. Received: TF_CONFIG with "
            f"the workers {workers}. Unset it, set KERAS_BACKEND=jax and run "
            f"keras-perceiver train RECIPE --address {workers[0]} --num-processes "
            f"{len(workers)} --process-index N on each."
        )


def best_engine(devices):
    backend = keras.backend.backend()
    if backend == "tensorflow":
        if _has_tpu():
            return "tpu"
        engine = "mirrored"
        num_accelerators = len(_tensorflow().config.list_physical_devices("GPU"))
    elif backend == "jax":
        engine = "data_parallel"
        if processes.num_processes() > 1:
            return engine
        num_accelerators = 0 if _is_cpu() else _num_available(backend)
    else:
        return "none"
    wanted = num_accelerators if devices is None else devices
    return engine if wanted > 1 else "none"


def _is_cpu():
    import jax

    return jax.default_backend() == "cpu"


def _has_tpu():
    """Returns whether TensorFlow can connect to a TPU, by name or locally."""
    if os.environ.get("TPU_NAME"):
        return True
    return bool(_tensorflow().config.list_physical_devices("TPU"))


def _num_available(backend):
    if backend == "jax":
        return keras.distribution.get_device_count()
    return len(_tensorflow_devices())


def _tensorflow_devices():
    config = _tensorflow().config
    return config.list_logical_devices("GPU") or config.list_logical_devices("CPU")


def checked_devices(engine, devices):
    """Returns the number of devices, after a check that there are that many."""
    if engine == "none":
        if devices not in (None, 1):
            raise ValueError(
                "The engine 'none' has one device. Received: "
                f"devices={devices} with KERAS_BACKEND={keras.backend.backend()}. Choose "
                "'mirrored' on TensorFlow, 'data_parallel' on JAX, or remove `devices`."
            )
        if processes.num_processes() > 1:
            raise ValueError(
                "Several processes must train together. Received: engine='none' in "
                f"{processes.num_processes()} processes with KERAS_BACKEND="
                f"{keras.backend.backend()}. Choose 'data_parallel' on JAX, or start one "
                "process."
            )
        return 1
    if engine == "tpu":
        available = tpu_strategy().num_replicas_in_sync
    else:
        available = _num_available(keras.backend.backend())
    devices = available if devices is None else devices
    if devices > available:
        raise ValueError(
            f"`devices` must not exceed the available devices. Received: "
            f"devices={devices}, but {available} available. Request fewer, or, for a "
            f"test on the CPU, call `virtual_devices({devices})` "
            f"(--virtual-devices {devices})."
        )
    if devices < available and (engine == "tpu" or processes.num_processes() > 1):
        raise ValueError(
            "A TPU, and several processes, use all their devices. Received: "
            f"devices={devices} of {available}. Remove `devices`."
        )
    return devices


def checked_model_devices(engine, devices, model_devices):
    if engine != "model_parallel":
        if model_devices not in (None, 1):
            raise ValueError(
                "`model_devices` belongs to the engine 'model_parallel'. Received: "
                f"model_devices={model_devices}, engine={engine!r}. Remove it."
            )
        return 1
    if processes.num_processes() > 1:
        raise ValueError(
            "The weights of a model are split within one process. Received: "
            f"engine='model_parallel' in {processes.num_processes()} processes. Choose "
            "'data_parallel'."
        )
    model_devices = devices if model_devices is None else model_devices
    if devices % model_devices:
        raise ValueError(
            "`devices` must be divisible by `model_devices`. Received: "
            f"devices={devices}, model_devices={model_devices}. Choose a divisor of "
            f"{devices}."
        )
    return model_devices


@functools.cache
def strategy_of(distribution):
    """Returns the `tf.distribute` strategy or Keras distribution, cached by value.

    A model can only be trained under the strategy that it was created under.
    """
    num_devices = distribution.devices
    if distribution.engine == "tpu":
        return tpu_strategy()
    if distribution.engine == "mirrored":
        tf = _tensorflow()
        names = [device.name for device in _tensorflow_devices()[:num_devices]]
        # CPU collectives fail in the second strategy of a process if its number of
        # devices differs from that of the first.
        is_cpu = "CPU" in names[0]
        reduction = tf.distribute.ReductionToOneDevice() if is_cpu else None
        return tf.distribute.MirroredStrategy(names, cross_device_ops=reduction)
    devices = keras.distribution.list_devices()[:num_devices]
    if distribution.engine == "data_parallel":
        # `Distribution.splits` has sharded the data already.
        return keras.distribution.DataParallel(
            devices=devices, auto_shard_dataset=False
        )
    mesh = keras.distribution.DeviceMesh(
        (distribution.num_replicas, distribution.model_devices),
        ("batch", "model"),
        devices,
    )
    layout_map = keras.distribution.LayoutMap(mesh)
    for pattern, axes in LAYOUTS.items():
        layout_map[pattern] = axes
    return _ModelParallel(
        layout_map=layout_map, batch_dim_name="batch", auto_shard_dataset=False
    )


@functools.cache
def tpu_strategy():
    distribute = _tensorflow().distribute
    # Connects, and initializes the TPU.
    resolver = distribute.cluster_resolver.TPUClusterResolver.connect(
        os.environ.get("TPU_NAME", "local")
    )
    return distribute.TPUStrategy(resolver)


class _ModelParallel(keras.distribution.ModelParallel):
    """Replicates variables that do not divide evenly, such as keys of odd width."""

    def get_variable_layout(self, variable):
        layout = super().get_variable_layout(variable)
        sizes = dict(
            zip(self.device_mesh.axis_names, self.device_mesh.shape, strict=True)
        )
        if any(
            axis is not None and length % sizes[axis]
            for axis, length in zip(layout.axes, variable.shape, strict=True)
        ):
            whole = (None,) * len(variable.shape)
            return keras.distribution.TensorLayout(whole, self.device_mesh)
        return layout
