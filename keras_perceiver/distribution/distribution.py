"""A common interface to `tf.distribute` and `keras.distribution`."""

from __future__ import annotations

import contextlib
import dataclasses

from keras_perceiver._checks import check_positive
from keras_perceiver.distribution import processes
from keras_perceiver.distribution.engines import (
    best_engine,
    check_engine,
    checked_devices,
    checked_model_devices,
    strategy_of,
)
from keras_perceiver.distribution.padding import (
    has_even_batches,
    mean_padding,
    padded,
    process_rows,
)


@dataclasses.dataclass(frozen=True)
class Distribution:
    """Devices that train a model together, on any engine that Keras supports.

    It is a value object: equal arguments mean the same devices in any number of scopes.
    So its scope can be entered again after `keras.utils.clear_session()`, which resets
    it on JAX. The constructor rejects impossible combinations.

    | Engine | Backend | Devices |
    | --- | --- | --- |
    | `"none"` | any | one |
    | `"mirrored"` | TensorFlow | GPUs (or CPUs) of one machine, each with a whole model |
    | `"tpu"` | TensorFlow | TPU cores, each with a whole model |
    | `"data_parallel"` | JAX | any, in one or several processes, each with a whole model |
    | `"model_parallel"` | JAX | any, in one process; `model_devices` share a model |

    `"auto"` uses a TPU, several GPUs, several processes or the requested number of
    devices if there are any, and is `"none"` otherwise.

    The batch size is that of all devices together. With the same seed and without
    dropout, training gives the same weights on any number of devices, up to rounding.

    Reference:
        [tf.distribute](https://www.tensorflow.org/guide/distributed_training) and
        [keras.distribution](https://keras.io/api/distribution/).

    Args:
        engine: String, one of the above.
        devices: Integer, number of devices of all processes together. Defaults to all
            devices of the best kind (TPU, GPU, CPU).
        model_devices: Integer, number of devices that the weights of one model are split
            over with `"model_parallel"`. Defaults to all.

    Returns:
        `Distribution`, whose attributes are the arguments, with `"auto"` and the
        defaults resolved.

    Raises:
        ValueError: if the engine is unknown or not available on the backend, if there
            are fewer devices than requested, if the numbers are inconsistent, or if
            `TF_CONFIG` defines several TensorFlow workers.

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
        check_engine(self.engine)
        for name in ("devices", "model_devices"):
            if getattr(self, name) is not None:
                check_positive(**{name: getattr(self, name)})
        engine = self.engine
        if engine == "auto":
            engine = best_engine(self.devices)
        devices = checked_devices(engine, self.devices)
        model_devices = checked_model_devices(engine, devices, self.model_devices)
        # The instance is frozen.
        object.__setattr__(self, "engine", engine)
        object.__setattr__(self, "devices", devices)
        object.__setattr__(self, "model_devices", model_devices)

    @property
    def num_replicas(self):
        """Integer, number of replicas that a batch is split over."""
        return self.devices // self.model_devices

    @property
    def num_processes(self):
        """Integer, number of processes that train together, including this one."""
        return processes.num_processes()

    @property
    def process_index(self):
        """Integer, index of this process, from 0. Process 0 writes all files."""
        return processes.process_index()

    @contextlib.contextmanager
    def scope(self):
        """Context in which models are created, compiled, trained and evaluated.

        It may be entered again: a model that was created in one scope can be trained in
        the next. Do not call `keras.utils.clear_session()` inside: on TensorFlow, the
        scope could not be left afterward.
        """
        if self.engine == "none":
            yield
            return
        with strategy_of(self).scope():
            yield

    def check_batch_size(self, batch_size, accumulation_steps=1):
        """Raises `ValueError` unless batches divide evenly over the replicas.

        Args:
            batch_size: Integer, examples per update, on all devices.
            accumulation_steps: Integer, number of micro-batches per update.
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

        Each process keeps its own rows of the training and validation batches. Batches
        that do not divide evenly are padded, see `evaluation`. The test data are not
        changed.

        Args:
            splits: `keras_perceiver.data.Splits`.
        """
        if self.num_replicas == 1:
            return splits
        if self.num_processes > 1 and splits.shard is not None:
            own = splits.shard(self.num_processes, self.process_index)
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
        if has_even_batches(dataset, self.num_replicas):
            return self._own_rows(dataset)
        # The mean over a padded batch is that over its examples.
        return self._own_rows(padded(dataset, self.num_replicas, None))

    def evaluation(self, dataset):
        """Returns a dataset whose metrics are exact on any number of devices.

        Batches that do not divide evenly are padded with zero-weight examples, so
        metrics must be passed to `compile` as `weighted_metrics`. The dataset is read
        once to compute the weight of the other examples. Each process keeps its own
        rows.

        Args:
            dataset: Batched `tf.data.Dataset` of `(inputs, targets)`.

        Returns:
            Batched `tf.data.Dataset` of `(inputs, targets)`, or, where it was padded, of
            `(inputs, targets, weights)`.
        """
        if self.num_replicas == 1:
            return dataset
        if not has_even_batches(dataset, self.num_replicas):
            weight = mean_padding(dataset, self.num_replicas)
            dataset = padded(dataset, self.num_replicas, weight)
        return self._own_rows(dataset)

    def _own_rows(self, dataset):
        """Keeps this process's rows of every batch."""
        if self.num_processes == 1:
            return dataset
        return process_rows(dataset, self.num_processes, self.process_index)


def get_distribution(
    engine: str | Distribution, devices: int | None = None
) -> Distribution:
    """Returns a `Distribution`, unchanged if it is one already.

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
            "A `Distribution` defines its devices. Received: "
            f"distribution={engine}, devices={devices}. Remove `devices`."
        )
    return engine
