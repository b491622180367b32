"""Runs the notebooks and writes their outputs into them.

    KERAS_BACKEND=jax python tools/run_notebooks.py
    KERAS_BACKEND=jax python tools/run_notebooks.py 01 05
    KERAS_BACKEND=jax python tools/run_notebooks.py --changed

A notebook is written when all of its cells have run. It may print nothing to stderr but
the lines that TensorFlow's libraries write when they start, which are left out. In its
metadata is a hash of its code: tests compare it, so that code and outputs belong together.

The cell with the tag `parameters` assigns what makes a notebook long, such as `EPOCHS`;
`test_parameters` in the metadata has the values that the tests put in their place.
"""

import argparse
import ast
import copy
import hashlib
import json
import re
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "notebooks"
MAX_BYTES = 300_000
_TIMEOUT = 1_200  # seconds per cell
# A line of TensorFlow's libraries, of XLA or of Abseil, or a further line of one: the node
# of a graph in which an error was found.
_NATIVE_LINE = re.compile(
    r"[IWEF]\d{4} .*\.cc:\d+\]|\d{4}-\d\d-\d\d .*\.cc:\d+\]"
    r"|\t \[\[\{\{|WARNING: All log messages before absl"
    r"|To enable the following instructions"
)


def main(arguments=None):
    options = parser().parse_args(arguments)
    try:
        paths = find(options.names)
    except ValueError as error:
        sys.exit(f"error: {error}")
    import nbformat

    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        if options.changed and is_fresh(notebook):
            print(f"{path.name}: unchanged")
            continue
        print(f"{path.name} ...", flush=True)
        start = time.monotonic()
        write(run(notebook), path)
        size, seconds = path.stat().st_size / 1_000, time.monotonic() - start
        print(f"{path.name}: {seconds:.0f} s, {size:.0f} kB", flush=True)


def parser():
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="such as 01; default: all"
    )
    parser.add_argument(
        "--changed",
        action="store_true",
        help="only notebooks whose code has changed since they were run",
    )
    return parser


def find(names=()):
    """Returns the paths of the notebooks whose names begin with one of `names`."""
    paths = sorted(FOLDER.glob("*.ipynb"))
    for name in names:
        if not any(path.name.startswith(name) for path in paths):
            raise ValueError(
                f"A name must be the beginning of one of {[p.name for p in paths]}. "
                f"Received: {name}. Give one of these."
            )
    return [p for p in paths if not names or p.name.startswith(tuple(names))]


def code_hash(notebook):
    """Returns the SHA-256 of the code of a notebook, a hexadecimal string."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()


def is_fresh(notebook):
    """Returns whether the outputs of a notebook are those of its code."""
    return notebook.metadata.get("code_hash") == code_hash(notebook)


def run(notebook, parameters=None):
    """Runs a notebook.

    Args:
        notebook: Notebook of nbformat.
        parameters: Dict, values in place of those that the cell with the tag
            `parameters` assigns, or `None`.

    Returns:
        Copy of the notebook with its outputs.

    Raises:
        ValueError: if a parameter is not in that cell, or if a cell prints to stderr.
        nbclient.exceptions.CellExecutionError: if a cell raises an error.
    """
    from nbclient import NotebookClient

    ran = with_parameters(notebook, parameters or {})
    NotebookClient(
        ran,
        timeout=_TIMEOUT,
        resources={"metadata": {"path": FOLDER}},
        record_timing=False,
    ).execute()
    for cell in ran.cells:
        if cell.cell_type == "code":
            cell.outputs = [x for x in map(_without_native_lines, cell.outputs) if x]
    return ran


def with_parameters(notebook, parameters):
    """Returns a copy of a notebook with other values in its cell of parameters."""
    changed = copy.deepcopy(notebook)
    (cell,) = (c for c in changed.cells if "parameters" in c.metadata.get("tags", ()))
    assigned = {
        target.id
        for node in ast.parse(cell.source).body
        if isinstance(node, ast.Assign)
        for target in node.targets
    }
    if unknown := sorted(set(parameters) - assigned):
        raise ValueError(
            f"A parameter must be one of {sorted(assigned)}. Received: {unknown}. "
            "Assign it in the cell with the tag `parameters`."
        )
    cell.source += "".join(
        f"\n{name} = {value!r}" for name, value in parameters.items()
    )
    return changed


def _without_native_lines(output):
    """Returns an output without the lines of TensorFlow's libraries, `None` if empty."""
    if output.output_type != "stream" or output.name != "stderr":
        return output
    others = [x for x in output.text.splitlines() if x and not _NATIVE_LINE.match(x)]
    if others:
        text = "\n".join(others)
        raise ValueError(
            f"A notebook must print nothing to stderr. Received: {text}. Mend the cause."
        )
    return None


def write(notebook, path):
    """Writes a notebook that has been run, with the hash of its code.

    Raises:
        ValueError: if the file would be larger than `MAX_BYTES`.
    """
    import nbformat

    notebook.metadata["code_hash"] = code_hash(notebook)
    notebook.metadata["language_info"] = {"name": "python"}
    text = nbformat.writes(notebook) + "\n"
    if len(text) > MAX_BYTES:
        raise ValueError(
            f"A notebook must have at most {MAX_BYTES:,} bytes. Received: {len(text):,} "
            f"in {path.name}. Draw fewer or smaller figures."
        )
    path.write_text(text)


if __name__ == "__main__":
    main()
