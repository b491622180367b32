"""Helpers of the programs in this folder, which only need the standard library."""

import os

BACKENDS = ("tensorflow", "jax", "torch")


def check_backend():
    """Returns the backend in KERAS_BACKEND.

    Raises:
        ValueError: if there is no such backend.
    """
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend not in BACKENDS:
        raise ValueError(
            f"KERAS_BACKEND must be one of {BACKENDS}. Received: "
            f"KERAS_BACKEND={backend!r}. Set it to one of them."
        )
    return backend


def markdown_table(lines):
    """Returns a Markdown table of sequences, the first of which is the header."""
    header, *rows = lines
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
