"""Runs exports and their checks in separate processes."""

import os
import subprocess
import sys


def run_python(*arguments):
    """Runs Python with arguments under TensorFlow.

    Raises:
        RuntimeError: if it fails. The message contains that of its exception, and a note
            the last lines of its output.
    """
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={
            **os.environ,
            "KERAS_BACKEND": "tensorflow",
            # To find modules of the user.
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines()
        error = RuntimeError(
            "The export failed and nothing was published. Received: "
            f"{_reason(lines) or f'status {result.returncode}'}"
        )
        error.add_note("\n".join(lines[-15:]))
        raise error


def _reason(lines):
    """Returns the exception at the end of the output of a Python process."""
    starts = [i for i, line in enumerate(lines) if line.startswith("Traceback ")]
    texts = lines[starts[-1] + 1 :] if starts else lines[-1:]
    for i, line in enumerate(texts):
        if not line.startswith(" "):
            return "\n".join(texts[i:])
    return ""
