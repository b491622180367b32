"""Processes that train together."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import keras
import numpy as np

from keras_perceiver._checks import check_positive

# Keras' own names, so that launchers of other Keras programs work as well.
_ENVIRONMENT = "KERAS_DISTRIBUTION_"
# How long finished processes wait for process 0, which exports the model.
_SHUTDOWN_SECONDS = 3600


def initialize(
    address: str | None = None,
    num_processes: int | None = None,
    process_index: int | None = None,
    heartbeat_seconds: int = 30,
) -> None:
    """Connects this process to others on JAX. Call it before anything is computed.

    All processes run the same program. Each argument defaults to the environment
    variable that `keras.distribution.initialize` reads:
    `KERAS_DISTRIBUTION_JOB_ADDRESSES`, `KERAS_DISTRIBUTION_NUM_PROCESSES`,
    `KERAS_DISTRIBUTION_PROCESS_ID`. Without any of them, nothing happens. When a
    process stops sending heartbeats, JAX terminates all others with an error, since
    they would wait for it forever.

    Args:
        address: String, `"host:port"` of process 0, or `"auto"` where JAX can detect
            all three: on Cloud TPU, Slurm and Open MPI.
        num_processes: Integer, total number of processes.
        process_index: Integer, index of this process, from 0.
        heartbeat_seconds: Integer, seconds without a heartbeat after which a process
            counts as dead. JAX's default is 100.

    Raises:
        ValueError: if one of the three is missing or invalid, or if the backend is not
            JAX.
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
        if address is None or num_processes is None or process_index is None:
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
        address = address.split(",")[0]  # Keras' variable may list all processes
    import jax

    # XLA on CPU has no collectives of its own; GPUs and TPUs ignore this.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # Not keras.distribution.initialize, which calls this without the two timeouts.
    jax.distributed.initialize(
        None if address == "auto" else address,
        num_processes,
        process_index,
        heartbeat_timeout_seconds=heartbeat_seconds,
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


def exit_process(status: int | str | None) -> NoReturn:
    """Exits this process without waiting for others that train together.

    At a normal exit JAX waits for all processes, and these may wait for this one in a
    collective. Without heartbeats from this process they exit, too.

    Args:
        status: Integer, or a message for stderr, as in `sys.exit`.
    """
    if num_processes() == 1:
        sys.exit(status)
    if not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def num_processes():
    """Returns the number of processes that train together, including this one.

    On PyTorch, this counts the processes of `torchrun`, which cannot share a run in
    Keras 3.15.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.process_count()
    return int(os.environ.get("WORLD_SIZE", 1)) if backend == "torch" else 1


def process_index():
    """Returns the index of this process, from 0."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.process_index()
    return int(os.environ.get("RANK", 0)) if backend == "torch" else 0


def check_equal(name: str, value: int) -> None:
    """Raises `ValueError` unless an integer is the same in all processes.

    Args:
        name: String, the name of the value in the error.
        value: Integer.
    """
    if num_processes() == 1:
        return
    from jax.experimental import multihost_utils

    values = multihost_utils.process_allgather(np.array(value)).tolist()
    if len(set(values)) > 1:
        raise ValueError(
            f"{name} must be the same in all processes. Received: {values}. All of them "
            "read and process 0 writes the run folder: put it where each can see it."
        )
