"""Searches: KerasTuner's tuners with our oracles, in one or several processes."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras_tuner as kt

from keras_perceiver import _locks
from keras_perceiver._checks import check_positive
from keras_perceiver._files import writing
from keras_perceiver.tuning.batches import count_examples
from keras_perceiver.tuning.oracles import CUT, make_oracle

if TYPE_CHECKING:
    import keras_tuner

    from keras_perceiver._typing import PathLike
    from keras_perceiver.tuning.hyper_model import PerceiverHyperModel
    from keras_perceiver.tuning.oracles import Budget

_HOST = "127.0.0.1"
_MAX_RESTARTS = 2
# Passes the end of the search to the workers that it starts.
_DEADLINE = "KERAS_PERCEIVER_SEARCH_DEADLINE"
_ENVIRONMENT = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


class _Timed:
    """Mixin that ends the running trial when the time is up, and reports its epoch.

    Attributes:
        budget: `Budget`.
        deadline: Float, in seconds as returned by `time.time()`, or `None`.
        progress: Callable, see `search`, or `None`.
    """

    budget: Any = None
    deadline: Any = None
    progress: Any = None

    def pre_create_trial(self):
        # KerasTuner asks an oracle without a proposal again without a pause.
        time.sleep(0.05)

    def on_epoch_begin(self, trial, model, epoch, logs=None):
        if self.progress is not None:
            self.progress(trial.trial_id, epoch)

    def on_batch_end(self, trial, model, batch, logs=None):
        if self._is_over():
            model.stop_training = True  # the epoch ends, with its validation

    def on_epoch_end(self, trial, model, epoch, logs=None):
        if self._is_over():
            model.stop_training = True
            trial.hyperparameters.values[CUT] = epoch + 1

    def _is_over(self):
        return self.deadline is not None and time.time() > self.deadline


class _Tuner(_Timed, kt.Tuner):
    pass


class _HyperbandTuner(_Timed, kt.Hyperband):
    def __init__(self, oracle, **options):
        # Hyperband's constructor would create another oracle.
        kt.Tuner.__init__(self, oracle, **options)


def make_tuner(
    hyper_model: PerceiverHyperModel,
    folder: PathLike,
    budget: Budget,
    algorithm: str = "hyperband",
    epochs: int = 30,
    seed: int = 0,
    hyperparameters: keras_tuner.HyperParameters | None = None,
    report: Callable[[str], Any] = print,
) -> keras_tuner.Tuner:
    """Returns a KerasTuner tuner for a search within a budget.

    A search in the folder is resumed, without repeating completed trials.

    Args:
        hyper_model: `PerceiverHyperModel`.
        folder: Path of the folder of the search.
        budget: `Budget`.
        algorithm: String, one of `ALGORITHMS`. Hyperband trains many models for a few
            epochs and continues with the best. The others train each for `epochs`.
        epochs: Integer, epochs per trial, the maximum for Hyperband.
        seed: Integer, seed of the proposals.
        hyperparameters: `keras_tuner.HyperParameters` that replace those of the same
            name, or `None`.
        report: Callable that takes the lines of a table, one per trial.

    Returns:
        `keras_tuner.Tuner`. Its `search` is that of KerasTuner, which `search` of this
        module calls.

    Raises:
        ValueError: if the algorithm is unknown, if a setting is a range with the
            algorithm `"grid"`, or if the number of inputs is unknown.
    """
    check_positive(epochs=epochs)
    hyper_model.sizes(hyper_model.defaults)  # the table needs them
    oracle = make_oracle(
        algorithm, hyper_model, budget, epochs, seed, report, hyperparameters
    )
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    kind = _HyperbandTuner if algorithm == "hyperband" else _Tuner
    tuner = kind(
        oracle,
        hypermodel=hyper_model,
        directory=str(folder.parent),
        project_name=folder.name,
    )
    tuner.budget = budget
    return tuner


def search(
    tuner: keras_tuner.Tuner,
    data: Any,
    epochs: int,
    validation_data: Any = None,
    num_workers: int = 1,
    command: Sequence[str] | None = None,
    progress: Callable[[str, int], Any] | None = None,
    **options: Any,
) -> list[dict]:
    """Runs a search until its budget is used up.

    One process at a time, with its workers, uses the folder of a search.

    Args:
        tuner: Result of `make_tuner`, called in `as_chief` for several workers.
        data: See `x` of `PerceiverHyperModel.fit`.
        epochs: Integer, as in `make_tuner`.
        validation_data: See `PerceiverHyperModel.fit`.
        num_workers: Integer, number of processes that run trials in parallel on this
            machine, through KerasTuner's chief and workers. One that dies is restarted
            and repeats its trial, which fails after two restarts.
        command: List of strings, the program that creates the same tuner and calls this
            function with one worker. It is required for several workers.
        progress: Callable that takes the name of a trial and the number of an epoch, from
            0. It is called at the start of each epoch in this process.
        **options: Other arguments of `PerceiverHyperModel.fit`, such as `y`.

    Returns:
        List of dicts, the table of trials, the best first.

    Raises:
        ValueError: if no trial could start.
        RuntimeError: if all workers died.
        BlockingIOError: if another process uses the folder.
        OSError: if the disk is full. The search can be resumed.
    """
    check_positive(num_workers=num_workers)
    oracle = tuner.oracle
    options = {**options, "validation_data": validation_data, "verbose": 0}
    tuner.progress = progress
    tuner.deadline = _deadline(tuner.budget)
    if (
        data is not None
        and not callable(data)
        and tuner.hypermodel.num_examples is None
    ):
        split = 0.0 if validation_data is not None else options.get("validation_split")
        tuner.hypermodel.set_num_examples(count_examples(data, split or 0.0))
    if is_worker():
        tuner.search(data, epochs=epochs, **options)
        return []
    oracle.begin(tuner.deadline)
    what = f"The search folder {tuner.project_dir!r}"
    path = Path(tuner.project_dir) / _locks.NAME
    with _locks.locked(path, what), writing(what, "Make room and resume."):
        if num_workers == 1:
            tuner.search(data, epochs=epochs, **options)
        else:
            _run_workers(tuner, num_workers, command)
    if not oracle.trials:
        raise ValueError(
            "A trial must be able to start. Received: a space without a feasible model, "
            "or a budget that is used up before the first trial. Change the space, or "
            "raise the limits."
        )
    return table(oracle)


def _deadline(budget):
    """Returns when a search that starts now ends, or `None`."""
    if _DEADLINE in os.environ:  # set by the chief
        return float(os.environ[_DEADLINE])
    return None if budget.minutes is None else time.time() + 60 * budget.minutes


def table(oracle: keras_tuner.Oracle) -> list[dict]:
    """Returns the table of trials as a list of dicts, the best first."""
    rows = [oracle.row(trial) for trial in oracle.trials.values()]
    sign = -1 if oracle.objective.direction == "max" else 1

    def rank(row):
        is_done = row["status"] == "COMPLETED"
        return (not is_done, sign * row["score"] if is_done else row["trial"])

    return sorted(rows, key=rank)


def is_worker():
    """Returns whether this process is a worker that runs trials for a chief."""
    name = os.environ.get("KERASTUNER_TUNER_ID")
    return name is not None and "chief" not in name


@contextlib.contextmanager
def as_chief():
    """Context in which new tuners are the chief of workers on this machine."""
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
    """Serves the oracle, and keeps the workers running until they finish."""
    # KerasTuner implements the protocol of chief and workers, but does not manage their
    # processes. A worker that died would block the search: the chief would wait for its
    # trial forever, since `max_retries_per_trial` only counts exceptions within a
    # worker. The chief exits about 20 seconds after the last worker, if none has died.
    threading.Thread(target=tuner.search, kwargs={"verbose": 0}, daemon=True).start()
    names = [f"worker{i}" for i in range(num_workers)]

    def start(name):
        environment = {**os.environ, "KERASTUNER_TUNER_ID": name}
        if tuner.deadline is not None:
            environment[_DEADLINE] = str(tuner.deadline)
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
                    workers[name] = start(name)  # it is assigned its trial again
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
            f"Workers must not die. Received: all {num_workers} died {_MAX_RESTARTS + 1} "
            "times. See their output. The search can be resumed."
        )


def _fail(oracle, name, status):
    """Ends the trial of a worker that is not restarted."""
    trial = oracle.ongoing_trials.get(name)
    if trial is None:
        return
    trial.status = "FAILED"
    trial.message = f"The worker {name} died with status {status}."
    oracle.end_trial(trial)
