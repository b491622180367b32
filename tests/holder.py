"""A separate process that holds a lock."""

import contextlib
import subprocess
import sys
from pathlib import Path

# The name of the command keeps the package from importing Keras.
_PROGRAM = """
import sys
sys.argv[0] = "keras-perceiver"
from keras_perceiver._locks import locked
with locked(sys.argv[1], "The folder"):
    print("has it", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holding(path):
    """Context in which another process, which it yields, holds the lock at a path."""
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, path],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "has it\n"
        yield process
        if process.poll() is None:
            process.communicate("")  # lets it exit
