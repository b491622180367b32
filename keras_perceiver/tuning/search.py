"""A search: KerasTuner's tuners over our oracles, in one process or several."""

import contextlib
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import keras_tuner as kt

from keras_perceiver._checks import check_positive
from keras_perceiver.tuning.oracles import make_oracle

_HOST = "127.0.0.1"
_MAX_RESTARTS = 2
_ENVIRONMENT = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


class _Waits:
    """While the oracle has nothing to do KerasTuner asks it again without a pause."""

    def pre_create_trial(self):
        time.sleep(0.05)


class _Tuner(_Waits, kt.Tuner):
    pass


class _HyperbandTuner(_Waits, kt.Hyperband):
    def __init__(self, oracle, **options):
        # Hyperband's own constructor makes an oracle of its own.
        kt.Tuner.__init__(self, oracle, **options)


def make_tuner(
    hyper_model,
    folder,
    budget,
    algorithm="hyperband",
    epochs=30,
    seed=0,
    hyperparameters=None,
    report=print,
):
    """Returns KerasTuner's tuner for a search within a budget.

    A search that has begun in the folder goes on: no finished trial runs again.

    Args:
        hyper_model: `PerceiverHyperModel`.
        folder: Path of the folder that holds all of the search.
        budget: `Budget`.
        algorithm: String, one of `ALGORITHMS`. Hyperband trains many models for a few
            epochs and goes on with the best; the others train each for `epochs`.
        epochs: Integer, passes over the training data in a trial, or the most of them.
        seed: Integer, seed of the proposals.
        hyperparameters: `keras_tuner.HyperParameters` that replace those of the same
            name, or `None`.
        report: Callable that is given the lines of a table, one a trial.

    Returns:
        `keras_tuner.Tuner`. Its `search` is that of KerasTuner; `search` of this module
        calls it.

    Raises:
        ValueError: if the algorithm is unknown, if a grid is asked for and a setting is
            a range, or if the number of inputs is not known.
    """
    check_positive(epochs=epochs)
    hyper_model.sizes(hyper_model.defaults)  # the table needs them
    oracle = make_oracle(
        algorithm, hyper_model, budget, epochs, seed, report, hyperparameters
    )
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    kind = _HyperbandTuner if algorithm == "hyperband" else _Tuner
    return kind(
        oracle,
        hypermodel=hyper_model,
        directory=str(folder.parent),
        project_name=folder.name,
    )


def search(tuner, data, epochs, validation_data=None, num_workers=1, command=None):
    """Runs a search to the end of its budget.

    Args:
        tuner: What `make_tuner` returned; for several workers, in `as_chief`.
        data: What `PerceiverHyperModel.fit` takes as `x`.
        epochs: Integer, as in `make_tuner`.
        validation_data: See `PerceiverHyperModel.fit`.
        num_workers: Integer, processes that run trials side by side, on this machine,
            through KerasTuner's chief and workers. One that dies is started again, and
            repeats the trial that it had begun; after two restarts its trial has failed.
        command: List of strings, the program that makes the same tuner and calls this
            function with one worker. Needed for several.

    Returns:
        List of dicts, the table of trials, the best first.

    Raises:
        ValueError: if no trial could begin.
        RuntimeError: if all workers died.
    """
    check_positive(num_workers=num_workers)
    oracle = tuner.oracle
    if is_worker():
        tuner.search(data, epochs=epochs, validation_data=validation_data, verbose=0)
        return []
    oracle.begin()
    if num_workers == 1:
        tuner.search(data, epochs=epochs, validation_data=validation_data, verbose=0)
    else:
        _run_workers(tuner, num_workers, command)
    if not oracle.trials:
        raise ValueError(
            "No trial could begin. Received: a space in which nothing can be built, or a "
            "budget that is used up before the first. Change the space, or raise the "
            "limits."
        )
    return table(oracle)


def table(oracle):
    """Returns the table of trials as a list of dicts, the best first."""
    rows = [oracle.row(trial) for trial in oracle.trials.values()]
    sign = -1 if oracle.objective.direction == "max" else 1

    def rank(row):
        is_done = row["status"] == "COMPLETED"
        return (not is_done, sign * row["score"] if is_done else row["trial"])

    return sorted(rows, key=rank)


def is_worker():
    """Tells whether this process runs trials for a chief in another."""
    name = os.environ.get("KERASTUNER_TUNER_ID")
    return name is not None and "chief" not in name


@contextlib.contextmanager
def as_chief():
    """Context in which a tuner that is made serves workers on this machine."""
    with socket.socket() as unused:
        unused.bind((_HOST, 0))
        port = unused.getsockname()[1]
    os.environ.update(zip(_ENVIRONMENT, ("chief", _HOST, str(port)), strict=True))
    try:
        yield
    finally:
        for name in _ENVIRONMENT:
            os.environ.pop(name, None)


def _run_workers(tuner, num_workers, command):
    """Serves the oracle, and keeps the workers running until they are done."""
    # KerasTuner has the protocol of chief and workers and leaves their processes to the
    # user. A worker that died would block the search: the chief waits for its trial for
    # ever, since `max_retries_per_trial` counts exceptions inside a worker only.
    # It ends by itself some 20 seconds after the last worker, if none has died.
    threading.Thread(target=tuner.search, kwargs={"verbose": 0}, daemon=True).start()
    names = [f"worker{i}" for i in range(num_workers)]

    def start(name):
        environment = {**os.environ, "KERASTUNER_TUNER_ID": name}
        return subprocess.Popen(command, env=environment)

    workers = {name: start(name) for name in names}
    restarts = dict.fromkeys(names, 0)
    try:
        while workers:
            time.sleep(0.2)
            for name, process in list(workers.items()):
                if process.poll() is None:
                    continue
                if process.returncode == 0:
                    del workers[name]
                elif restarts[name] < _MAX_RESTARTS:
                    restarts[name] += 1
                    workers[name] = start(name)  # its trial is given to it again
                else:
                    del workers[name]
                    _fail(tuner.oracle, name, process.returncode)
    finally:
        for process in workers.values():
            process.terminate()
        for process in workers.values():
            process.wait()
    if all(count >= _MAX_RESTARTS for count in restarts.values()):
        raise RuntimeError(
            f"Workers must live. Received: all {num_workers} died {_MAX_RESTARTS + 1} "
            "times. See what they printed; the search can be resumed."
        )


def _fail(oracle, name, status):
    """Ends the trial of a worker that is not coming back."""
    trial = oracle.ongoing_trials.get(name)
    if trial is None:
        return
    trial.status = "FAILED"
    trial.message = f"The worker {name} died with status {status}."
    oracle.end_trial(trial)
