"""From one device to many: one switch over tf.distribute and keras.distribution."""

import contextlib
import dataclasses
import functools
import json
import os
import sys

import keras
import numpy as np

from keras_perceiver._checks import check_positive

ENGINES = ("auto", "none", "mirrored", "tpu", "data_parallel", "model_parallel")
_BACKENDS = {
    "mirrored": "tensorflow",
    "tpu": "tensorflow",
    "data_parallel": "jax",
    "model_parallel": "jax",
}
# Keras' own names, so that what launches other Keras programs launches these too.
_ENVIRONMENT = "KERAS_DISTRIBUTION_"
# Without a sign of life for so long, a process counts as dead and the others end. JAX's
# default is 100 seconds, and keras.distribution.initialize cannot change it.
HEARTBEAT_SECONDS = 30
# Processes that are done wait so long for process 0, which exports the model.
_SHUTDOWN_SECONDS = 3600

# The axes of the weights of attention and MLPs that are split over the devices of one
# model: the width of all heads, and the hidden width. What goes back to the latents is
# split on the side that it reads, so that a block sums over devices only at its two
# ends. All else is whole on every device: latents, norms, positions, the head.
LAYOUTS = {
    r".*/(query|key|value|mlp_hidden)/kernel": (None, "model"),
    r".*/(query|key|value|mlp_hidden)/bias": ("model",),
    r".*/(output_projection|mlp_output)/kernel": ("model", None),
}


@dataclasses.dataclass(frozen=True)
class Distribution:
    """Devices, and what they do together: one switch for every engine that Keras has.

    A value: equal arguments mean the same devices, in as many scopes as you like. So it
    can be set again after `keras.utils.clear_session()`, which forgets it on JAX. What
    cannot work is refused when it is made.

    | Engine | Backend | Devices |
    | --- | --- | --- |
    | `"none"` | any | one |
    | `"mirrored"` | TensorFlow | GPUs (or CPUs) of one machine, each with a whole model |
    | `"tpu"` | TensorFlow | TPU cores, each with a whole model |
    | `"data_parallel"` | JAX | any, of one process or many, each with a whole model |
    | `"model_parallel"` | JAX | any, of one process; `model_devices` share a model |

    `"auto"` is a TPU if there is one, several GPUs, several processes or several devices
    asked for, and else `"none"`.

    The batch size is always that of all devices together. With the same seed, and without
    dropout, training gives the same weights on any number of devices, up to rounding.

    Reference:
        [tf.distribute](https://www.tensorflow.org/guide/distributed_training) and
        [keras.distribution](https://keras.io/api/distribution/).

    Args:
        engine: String, one of the above.
        devices: Integer, number of devices, those of all processes together. Defaults to
            all of the best kind (TPU, GPU, CPU).
        model_devices: Integer, of `"model_parallel"`: devices over which the weights of
            one model are split. Defaults to all.

    Returns:
        `Distribution`, whose attributes are the arguments, with `"auto"` and the
        defaults replaced by what they mean here.

    Raises:
        ValueError: if the engine is unknown or not one of the backend's, if there are
            fewer devices than asked for, if the numbers do not fit together, or if
            `TF_CONFIG` asks for several TensorFlow workers.

    Example:

    >>> distribution = Distribution("none")
    >>> with distribution.scope():
    ...     model = PerceiverClassifier.from_preset("digits")
    >>> distribution.num_replicas
    1
    """

    engine: str = "auto"
    devices: int | None = None
    model_devices: int | None = None

    def __post_init__(self):
        _check_engine(self.engine)
        for name in ("devices", "model_devices"):
            if getattr(self, name) is not None:
                check_positive(**{name: getattr(self, name)})
        engine = self.engine
        if engine == "auto":
            engine = _best_engine(self.devices)
        devices = _checked_devices(engine, self.devices)
        model_devices = _checked_model_devices(engine, devices, self.model_devices)
        # What is frozen is set by the name.
        object.__setattr__(self, "engine", engine)
        object.__setattr__(self, "devices", devices)
        object.__setattr__(self, "model_devices", model_devices)

    @property
    def num_replicas(self):
        """Integer, parts of a batch that are computed side by side."""
        return self.devices // self.model_devices

    @property
    def num_processes(self):
        """Integer, processes that train together, this one included."""
        return _num_processes()

    @property
    def process_index(self):
        """Integer, number of this process, from 0. Process 0 writes all files."""
        return _process_index()

    @contextlib.contextmanager
    def scope(self):
        """Context in which models are made, compiled, trained and evaluated.

        May be entered again: a model that was made in one scope trains in the next. Not
        a place for `keras.utils.clear_session()`, which on TensorFlow forgets the way out.
        """
        if self.engine == "none":
            yield
            return
        with _made(self).scope():
            yield

    def check_batch_size(self, batch_size, accumulation_steps=1):
        """Raises `ValueError` unless every replica can have its part of a batch.

        Args:
            batch_size: Integer, examples of an update, on all devices.
            accumulation_steps: Integer, parts in which they are read one after the other.
        """
        num_parts = self.num_replicas * accumulation_steps
        if batch_size % num_parts:
            raise ValueError(
                "`batch_size` must be divisible by the number of replicas, times "
                f"`accumulation_steps`. Received: batch_size={batch_size} for "
                f"{self.num_replicas} replicas ({self.engine}), accumulation_steps="
                f"{accumulation_steps}. Choose a multiple of {num_parts}."
            )
        if self.engine == "mirrored" and accumulation_steps > 1:
            raise ValueError(
                "Keras 3.15 cannot accumulate gradients under MirroredStrategy. Received: "
                f"accumulation_steps={accumulation_steps}. Set it to 1 (several devices "
                "need less memory each), or set KERAS_BACKEND=jax for 'data_parallel'."
            )

    def splits(self, splits):
        """Returns the data for these devices.

        Of training and validation batches, each process has its own rows; batches that
        do not divide are filled up, see `evaluation`. The test data stay whole.

        Args:
            splits: `keras_perceiver.data.Splits`.
        """
        if self.num_replicas == 1:
            return splits
        if self.num_processes > 1 and splits.of_process is not None:
            own = splits.of_process(self.num_processes, self.process_index)
            train, epoch = own.train, own.epoch
        else:
            train = self._training(splits.train)

            def epoch(number, num_done=0):
                return self._training(splits.epoch(number, num_done))

        return splits._replace(
            train=train,
            epoch=epoch,
            validation=self.evaluation(splits.validation),
        )

    def _training(self, dataset):
        if _has_even_batches(dataset, self.num_replicas):
            return self._own_rows(dataset)
        # The mean over a batch that was filled up is that over its examples.
        return self._own_rows(_filled(dataset, self.num_replicas, None))

    def evaluation(self, dataset):
        """Returns a dataset whose metrics are exact on all devices.

        Batches that do not divide are filled up with examples that have the weight 0; so
        metrics must be `weighted_metrics` in `compile`. To know how much the others
        weigh, the dataset is read once here. Of several processes, each has its rows.

        Args:
            dataset: Batched `tf.data.Dataset` of `(inputs, labels)`.

        Returns:
            Batched `tf.data.Dataset` of `(inputs, labels)`, or, where it was filled up,
            of `(inputs, labels, weights)`.
        """
        if self.num_replicas == 1:
            return dataset
        if not _has_even_batches(dataset, self.num_replicas):
            weight = _mean_filling(dataset, self.num_replicas)
            dataset = _filled(dataset, self.num_replicas, weight)
        return self._own_rows(dataset)

    def _own_rows(self, dataset):
        """Leaves of every batch the rows of this process."""
        num_processes, index = self.num_processes, self.process_index
        if num_processes == 1:
            return dataset

        def cut(*batch):
            def rows(x):
                size = x.shape[0] or _tensorflow().shape(x)[0]
                size = size // num_processes
                return x[index * size : (index + 1) * size]

            return keras.tree.map_structure(rows, batch)

        return dataset.map(cut)


def distribution_of(engine, devices=None):
    """Returns a `Distribution`, or the one that it is given.

    Args:
        engine: String or `Distribution`.
        devices: Integer or `None`.

    Raises:
        ValueError: as `Distribution`, or if a `Distribution` comes with `devices`.
    """
    if not isinstance(engine, Distribution):
        return Distribution(engine, devices)
    if devices is not None:
        raise ValueError(
            "A `Distribution` has its devices. Received: "
            f"distribution={engine}, devices={devices}. Leave `devices` out."
        )
    return engine


def initialize(address=None, num_processes=None, process_index=None):
    """Joins this process and others, on JAX: before anything is computed.

    All of them run the same program. Each argument defaults to the environment variable
    that `keras.distribution.initialize` reads: `KERAS_DISTRIBUTION_JOB_ADDRESSES`,
    `KERAS_DISTRIBUTION_NUM_PROCESSES`, `KERAS_DISTRIBUTION_PROCESS_ID`. Without any,
    nothing happens. When a process has given no sign of life for half a minute, JAX ends
    all others and says so: they would wait for it for ever.

    Args:
        address: String, `"host:port"` of process 0; or `"auto"` where JAX finds out all
            three: on Cloud TPU, Slurm and Open MPI.
        num_processes: Integer, number of all processes.
        process_index: Integer, number of this one, from 0.

    Raises:
        ValueError: if one of the three is missing or wrong, or if the backend is not JAX.
    """
    address = address or os.environ.get(f"{_ENVIRONMENT}JOB_ADDRESSES")
    num_processes = _number(num_processes, "NUM_PROCESSES")
    process_index = _number(process_index, "PROCESS_ID")
    given = {
        "address": address,
        "num_processes": num_processes,
        "process_index": process_index,
    }
    if all(value is None for value in given.values()):
        return
    if keras.backend.backend() != "jax":
        raise ValueError(
            "Several processes train together on JAX only. Received: "
            f"{_text(given)} with KERAS_BACKEND={keras.backend.backend()}. Set "
            "KERAS_BACKEND=jax; the saved model is the same on every backend."
        )
    if address != "auto":
        if None in given.values():
            raise ValueError(
                "Several processes need `address`, `num_processes` and `process_index`. "
                f"Received: {_text(given)}. Give all three, or address='auto'."
            )
        check_positive(num_processes=num_processes)
        if not 0 <= process_index < num_processes:
            raise ValueError(
                "`process_index` must be from 0 to `num_processes` - 1. Received: "
                f"{_text(given)}. Number the processes from 0."
            )
        address = address.split(",")[0]  # Keras' variable may name all of them
    import jax

    # XLA on CPU has no collectives of its own; GPUs and TPUs take no notice.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # Not keras.distribution.initialize, which calls this and knows none of its times.
    jax.distributed.initialize(
        None if address == "auto" else address,
        num_processes,
        process_index,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
    )


def _number(value, name):
    text = os.environ.get(f"{_ENVIRONMENT}{name}")
    if value is not None or text is None:
        return value
    if not text.isdigit():
        raise ValueError(
            f"`{_ENVIRONMENT}{name}` must be a number. Received: {text!r}. Correct it."
        )
    return int(text)


def _text(given):
    return ", ".join(f"{name}={value!r}" for name, value in given.items())


def leave(status):
    """Ends this process, and does not wait for others that train together.

    At a normal end JAX waits for all of them, and these may wait for this one's part of a
    sum. Without a sign of life from this one they end too.

    Args:
        status: Integer, or a message for stderr, as in `sys.exit`.
    """
    if _num_processes() == 1:
        sys.exit(status)
    if not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def virtual_devices(number):
    """Makes several devices of the CPU, to try what is meant for real ones.

    Before TensorFlow or JAX have computed anything. They share the cores: nothing gets
    faster.

    Args:
        number: Integer.

    Raises:
        ValueError: if `number` is not positive, or if the backend has no such devices.
        RuntimeError: if it is too late.
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
            "Virtual devices are made by TensorFlow and JAX. Received: "
            f"KERAS_BACKEND={backend}. Set it to one of these."
        )


def predict_on_batch(model, inputs):
    """Returns what a model gives for a batch, in a scope or in none, as NumPy array.

    Args:
        model: `keras.Model`.
        inputs: Arrays of the whole batch, in every process.
    """
    num_replicas = 1
    if keras.backend.backend() == "tensorflow":
        num_replicas = model.distribute_strategy.num_replicas_in_sync
    if num_replicas == 1:
        return np.asarray(model.predict_on_batch(inputs))
    # Keras' own gives every replica the whole batch.
    num_rows = len(keras.tree.flatten(inputs)[0])
    num_filled = num_rows + -num_rows % num_replicas
    rows = np.minimum(np.arange(num_filled), num_rows - 1)
    filled = keras.tree.map_structure(lambda x: np.asarray(x)[rows], inputs)
    return model.predict(filled, batch_size=num_filled, verbose=0)[:num_rows]


def check_equal(name, value):
    """Raises `ValueError` unless an integer is the same in all processes.

    Args:
        name: String, what it is.
        value: Integer.
    """
    if _num_processes() == 1:
        return
    from jax.experimental import multihost_utils

    values = multihost_utils.process_allgather(np.array(value)).tolist()
    if len(set(values)) > 1:
        raise ValueError(
            f"{name} must be the same in all processes. Received: {values}. All of them "
            "read and process 0 writes the run folder: put it where each can see it."
        )


def _tensorflow():
    # Loaded only where TensorFlow is the backend or has made the data.
    import tensorflow as tf

    return tf


def _check_engine(engine):
    if engine not in ENGINES:
        raise ValueError(
            f"`engine` must be one of {ENGINES}. Received: engine={engine!r}. Choose one "
            "of them."
        )
    backend = keras.backend.backend()
    if backend == "tensorflow":
        _check_no_workers()
    wanted = _BACKENDS.get(engine, backend)
    if wanted != backend:
        others = [name for name, of in _BACKENDS.items() if of == backend]
        fix = f"Set KERAS_BACKEND={wanted}"
        if others:
            fix += f", or choose one of {others}"
        if backend == "torch":
            fix += (
                "; Keras 3.15 has no distribution on torch. The saved model is the same"
            )
        raise ValueError(
            f"The engine {engine!r} is one of the backend {wanted}. Received: "
            f"KERAS_BACKEND={backend}. {fix}."
        )


def _check_no_workers():
    """Refuses `MultiWorkerMirroredStrategy`, whose `fit` Keras 3.15.1 fails in."""
    try:
        cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    except json.JSONDecodeError as error:
        raise ValueError(
            f"TF_CONFIG must be JSON. Received: {os.environ['TF_CONFIG']!r}. Unset it."
        ) from error
    workers = [*cluster.get("chief", []), *cluster.get("worker", [])]
    if len(workers) > 1:
        raise ValueError(
            "Several machines train together on JAX only: `fit` under TensorFlow's "
            "MultiWorkerMirroredStrategy fails in Keras 3.15. Received: TF_CONFIG with "
            f"the workers {workers}. Unset it, set KERAS_BACKEND=jax and start "
            f"tools/train.py --address {workers[0]} --num-processes {len(workers)} "
            "--process-index N on each."
        )


def _best_engine(devices):
    backend = keras.backend.backend()
    if backend == "tensorflow":
        if _has_tpu():
            return "tpu"
        engine = "mirrored"
        num_accelerators = len(_tensorflow().config.list_physical_devices("GPU"))
    elif backend == "jax":
        engine = "data_parallel"
        if _num_processes() > 1:
            return engine
        num_accelerators = 0 if _jax_platform() == "cpu" else _num_available(backend)
    else:
        return "none"
    wanted = num_accelerators if devices is None else devices
    return engine if wanted > 1 else "none"


def _has_tpu():
    """Tells whether TensorFlow can connect to a TPU: one that is named, or its own."""
    if os.environ.get("TPU_NAME"):
        return True
    return bool(_tensorflow().config.list_physical_devices("TPU"))


def _jax_platform():
    import jax

    return jax.default_backend()


def _num_available(backend):
    if backend == "jax":
        return keras.distribution.get_device_count()
    return len(_tensorflow_devices())


def _tensorflow_devices():
    config = _tensorflow().config
    return config.list_logical_devices("GPU") or config.list_logical_devices("CPU")


def _num_processes():
    if keras.backend.backend() != "jax":
        return 1
    import jax

    return jax.process_count()


def _process_index():
    if keras.backend.backend() != "jax":
        return 0
    import jax

    return jax.process_index()


def _checked_devices(engine, devices):
    """Returns the number of devices, if there are so many."""
    if engine == "none":
        if devices not in (None, 1):
            raise ValueError(
                "The engine 'none' has one device. Received: "
                f"devices={devices} with KERAS_BACKEND={keras.backend.backend()}. Choose "
                "'mirrored' on TensorFlow, 'data_parallel' on JAX, or leave it out."
            )
        if _num_processes() > 1:
            raise ValueError(
                "Several processes must train together. Received: engine='none' in "
                f"{_num_processes()} processes. Choose 'data_parallel'."
            )
        return 1
    if engine == "tpu":
        available = _tpu_strategy().num_replicas_in_sync
    else:
        available = _num_available(keras.backend.backend())
    devices = available if devices is None else devices
    if devices > available:
        raise ValueError(
            f"`devices` must not exceed the devices there are. Received: "
            f"devices={devices}, where there are {available}. Ask for fewer; or, to try "
            f"it on the CPU, make some with `virtual_devices({devices})` "
            f"(--virtual-devices {devices})."
        )
    if devices < available and (engine == "tpu" or _num_processes() > 1):
        raise ValueError(
            "A TPU, and several processes, take part with all their devices. Received: "
            f"devices={devices} of {available}. Leave `devices` out."
        )
    return devices


def _checked_model_devices(engine, devices, model_devices):
    if engine != "model_parallel":
        if model_devices not in (None, 1):
            raise ValueError(
                "`model_devices` belongs to the engine 'model_parallel'. Received: "
                f"model_devices={model_devices}, engine={engine!r}. Leave it out."
            )
        return 1
    if _num_processes() > 1:
        raise ValueError(
            "The weights of a model are split within one process. Received: "
            f"engine='model_parallel' in {_num_processes()} processes. Choose "
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
def _made(distribution):
    """Returns the strategy or Keras distribution, one for all equal values.

    A model trains in the strategy that it was made in, and in no other.
    """
    num_devices = distribution.devices
    if distribution.engine == "tpu":
        return _tpu_strategy()
    if distribution.engine == "mirrored":
        tf = _tensorflow()
        names = [device.name for device in _tensorflow_devices()[:num_devices]]
        # Collectives of CPUs fail in the second strategy of a process that has another
        # number of devices than the first.
        is_cpu = "CPU" in names[0]
        reduction = tf.distribute.ReductionToOneDevice() if is_cpu else None
        return tf.distribute.MirroredStrategy(names, cross_device_ops=reduction)
    devices = keras.distribution.list_devices()[:num_devices]
    if distribution.engine == "data_parallel":
        # `Distribution.splits` has cut the data already.
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
def _tpu_strategy():
    distribute = _tensorflow().distribute
    # Connects, and initialises the TPU.
    resolver = distribute.cluster_resolver.TPUClusterResolver.connect(
        os.environ.get("TPU_NAME", "local")
    )
    return distribute.TPUStrategy(resolver)


class _ModelParallel(keras.distribution.ModelParallel):
    """Leaves whole what does not divide, such as keys as wide as odd inputs."""

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


def _has_even_batches(dataset, num_parts):
    """Tells whether all batches are known to divide."""
    sizes = [spec.shape[0] for spec in keras.tree.flatten(dataset.element_spec)]
    return all(size is not None and size % num_parts == 0 for size in sizes)


def _filled(dataset, num_parts, weight):
    """Fills batches up to a multiple of `num_parts` rows, with rows of weight 0.

    These repeat the last example, so that they are as any example is.

    Args:
        dataset: Batched `tf.data.Dataset` of `(inputs, labels)`.
        num_parts: Integer.
        weight: Float, weight of the other rows. `None` for the mean over a batch to be
            that over its examples.
    """
    tf = _tensorflow()

    def fill(inputs, labels):
        num_rows = tf.shape(labels)[0]
        num_filled = _rounded_up(num_rows, num_parts)
        indices = tf.range(num_filled)
        last = tf.minimum(indices, num_rows - 1)
        batch = keras.tree.map_structure(lambda x: tf.gather(x, last), (inputs, labels))
        of_row = tf.cast(num_filled / num_rows, "float32") if weight is None else weight
        return *batch, tf.where(indices < num_rows, of_row, 0.0)

    return dataset.map(fill)


def _mean_filling(dataset, num_parts):
    """Returns how many rows there are for one example, once batches are filled up.

    With this weight of all examples, the mean over all rows, whose number is what Keras
    divides by, is the mean over all examples, whatever the sizes of the batches.
    """
    tf = _tensorflow()

    def add(counts, batch):
        num_rows = tf.shape(batch[1], "int64")[0]
        return counts[0] + num_rows, counts[1] + _rounded_up(num_rows, num_parts)

    zero = tf.constant(0, "int64")
    num_rows, num_filled = dataset.reduce((zero, zero), add)
    return float(num_filled) / max(int(num_rows), 1)


def _rounded_up(number, multiple):
    return number + -number % multiple
