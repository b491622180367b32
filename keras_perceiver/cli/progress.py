"""The stages of a run, with progress and the remaining time."""

import time

import keras

from keras_perceiver.cli import console


def run_stages(run):
    """Trains, tests, saves and exports a run, and prints a summary and its test scores.

    Args:
        run: `keras_perceiver.training.Run`.
    """
    with console.waiting("reading the data"):
        run.prepare()
    if run.is_writer:
        print(start_line(run), flush=True)
    run.fit([FitProgress(run)], verbose=0)
    with console.waiting("testing"):
        run.score()
    if run.is_writer:
        for line in score_lines(run):
            print(line, flush=True)
    with console.waiting("saving and exporting, which is checked in another process"):
        run.save()
        run.export()


def start_line(run):
    """Returns a line with the model, the backend, the number of steps and the folder."""
    recipe = run.recipe
    text = (
        f"{recipe.name} on {keras.backend.backend()}: {run.model.count_params():,} "
        f"parameters, {recipe.epochs} epochs of {run.steps_per_epoch} steps"
    )
    if recipe.precision != "float32":
        text += f", {recipe.precision}"
    if run.distribution.devices > 1:
        text += f", {run.distribution.devices} devices"
    if run.step:
        text += f", from step {run.step}"
    return f"{text} -> {run.run_folder}"


def score_lines(run):
    """Returns lines with the test scores."""
    lines = []
    for name, value in run.metrics.items():
        is_score = name.startswith("test_") and name != "test_loss"
        if is_score and isinstance(value, float):
            for missing, score in run.metrics.get(f"{name}_without", {}).items():
                lines.append(f"{name} without {missing}: {score:.4f}")
            lines.append(f"{name}: {value:.4f}")
    return lines


class FitProgress(keras.callbacks.Callback):
    """Shows one line per epoch of a run, with the remaining time.

    Args:
        run: Prepared `keras_perceiver.training.Run`.
    """

    def __init__(self, run):
        super().__init__()
        self._epochs = run.recipe.epochs
        self._num_steps = run.recipe.epochs * run.steps_per_epoch
        self._names = ("loss", run.model.score)
        self._is_writer = run.is_writer
        self._step = self._first = run.step
        self._start = None
        self._line = console.Line()

    def on_train_begin(self, logs=None):
        if self._is_writer and self._start is None:
            console.say("compiling the first step ...")

    def on_train_batch_end(self, batch, logs=None):
        self._step += 1
        if self._start is None:  # the first step compiles
            self._start, self._first = time.monotonic(), self._step
        elif self._is_writer:
            self._line.show(f"step {self._step} of {self._num_steps}, {self._left()}")

    def on_epoch_end(self, epoch, logs=None):
        if not self._is_writer:
            return
        names = [*self._names, *(f"val_{name}" for name in self._names)]
        scores = [f"{name} {logs[name]:.4f}" for name in names if name in logs]
        self._line.clear()
        epochs = f"epoch {epoch + 1:>{len(str(self._epochs))}} of {self._epochs}"
        console.say("  ".join([epochs, *scores, self._left()]))

    def _left(self):
        num_done = self._step - self._first
        if not num_done:
            return "time left not known yet"
        seconds = (time.monotonic() - self._start) / num_done
        return f"{console.duration(seconds * (self._num_steps - self._step))} left"


class SearchProgress:
    """Text with the current trial and epoch of a search, and the remaining time.

    Args:
        minutes: Float, time that the search takes from now on, or `None`.
    """

    def __init__(self, minutes):
        self._end = None if minutes is None else time.time() + 60 * minutes
        self._trial = ""

    def begin_epoch(self, trial, epoch):
        """Stores the trial and the epoch, see `progress` of `tuning.search`."""
        self._trial = f"trial {trial}, epoch {epoch + 1}"

    def text(self):
        """Returns the text, for the end of a line."""
        rest = ""
        if self._end is not None:
            rest = f"{console.duration(max(self._end - time.time(), 0))} left"
        return ", ".join(filter(None, (self._trial, rest)))
