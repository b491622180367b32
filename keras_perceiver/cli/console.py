"""Messages and progress of the commands on stderr, since stdout is for results."""

import contextlib
import importlib
import logging
import os
import sys
import tempfile
import threading
import time

# Seconds between updates of the progress line on a terminal, or between lines
# elsewhere.
_ON_TERMINAL, _ELSEWHERE = 1, 30


def say(text):
    """Prints a line immediately."""
    print(text, file=sys.stderr, flush=True)


class Line:
    """A progress line, which is rewritten on a terminal and repeated elsewhere.

    Args:
        seconds: Float, seconds between two lines. Defaults to 1 on a terminal, and to 30
            elsewhere.
    """

    def __init__(self, seconds=None):
        self._is_terminal = sys.stderr.isatty()
        if seconds is None:
            seconds = _ON_TERMINAL if self._is_terminal else _ELSEWHERE
        self._seconds = seconds
        self._last = time.monotonic()
        self._is_shown = False

    def show(self, text):
        """Shows a text, unless the line was updated just before."""
        now = time.monotonic()
        if now - self._last < self._seconds:
            return
        self._last = now
        if self._is_terminal:
            # Erases the previous line.
            print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)
            self._is_shown = True
        else:
            say(text)

    def clear(self):
        """Erases the line before other output."""
        if self._is_shown:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
            self._is_shown = False

    def print(self, text):
        """Prints a result to stdout, after erasing the line."""
        self.clear()
        print(text, flush=True)


@contextlib.contextmanager
def waiting(text, seconds=None, more=None):
    """Context that shows a progress line with the elapsed time.

    Args:
        text: String, such as `"exporting"`.
        seconds: Float, see `Line`.
        more: Callable that returns text to show after the time, or `None`.

    Yields:
        `Line`, which must be cleared before other output.
    """
    say(f"{text} ...")
    start, is_done = time.monotonic(), threading.Event()
    line = Line(seconds)

    def tick():
        while not is_done.wait(1 if seconds is None else seconds):
            elapsed = f"{text}: {duration(time.monotonic() - start)} so far"
            line.show(elapsed if more is None else f"{elapsed}, {more()}")

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield line
    finally:
        is_done.set()
        thread.join()
        line.clear()


class Batches:
    """Batches that say how many of them are done, and how long the rest takes.

    Args:
        dataset: `tf.data.Dataset`.
        text: String, what is done, such as `"evaluating"`.
        seconds: Float, see `Line`.
    """

    def __init__(self, dataset, text, seconds=None):
        self._dataset, self._text, self._seconds = dataset, text, seconds
        self.element_spec = dataset.element_spec

    def as_numpy_iterator(self):
        total = int(self._dataset.cardinality())
        line, start = Line(self._seconds), time.monotonic()
        for i, batch in enumerate(self._dataset.as_numpy_iterator()):
            yield batch
            rest = (time.monotonic() - start) / (i + 1) * (total - i - 1)
            of = f" of {total}, {duration(rest)} left" if total >= 0 else ""
            line.show(f"{self._text}: batch {i + 1}{of}")
        line.clear()


def duration(seconds):
    """Returns a duration as readable text."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def import_keras(num_virtual_devices=None):
    """Imports Keras and the classes of saved models, without TensorFlow's messages.

    Args:
        num_virtual_devices: Integer, see `keras_perceiver.distribution`.
    """
    backend = os.environ.get("KERAS_BACKEND")
    say("loading Keras ..." if backend is None else f"loading Keras on {backend} ...")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with quiet():
        import keras  # noqa: F401  before TensorFlow, since torch must come first

        for package in importlib.import_module("keras_perceiver").REGISTERED:
            importlib.import_module(f"keras_perceiver.{package}")
        import tensorflow as tf

        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        if num_virtual_devices is not None:
            from keras_perceiver import distribution

            distribution.virtual_devices(num_virtual_devices)
        tf.config.list_physical_devices()  # which logs messages as well


@contextlib.contextmanager
def quiet():
    """Context in which nothing is written to stderr, not even by native libraries.

    TensorFlow 2.21 logs several lines when it is imported, whatever its environment
    variables are. Exceptions are raised as usual.
    """
    sys.stderr.flush()
    try:
        stderr = os.dup(2)
    except OSError:  # closed
        yield
        return
    with tempfile.TemporaryFile() as messages:
        os.dup2(messages.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
