"""`SHA256SUMS`: the hashes of the files of an exported version.

TensorFlow checks the weights when it loads them, but not the graph. The file has the format
of `sha256sum --check`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from keras_perceiver._files import file_hash

if TYPE_CHECKING:
    from keras_perceiver._typing import PathLike

NAME = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def write_manifest(folder):
    """Writes the manifest of all files in a folder."""
    folder = Path(folder)
    lines = [f"{file_hash(folder / name)}  {name}\n" for name in _names(folder)]
    (folder / NAME).write_text("".join(lines), encoding="utf-8")


def verify_version(folder: PathLike) -> int:
    """Checks the files of an exported version against the hashes in its manifest.

    Args:
        folder: Path of the folder of a version.

    Returns:
        Integer, number of files.

    Raises:
        FileNotFoundError: if there is no manifest.
        ValueError: if files are missing, have changed or are not in the manifest. The
            message names all of them.
    """
    folder = Path(folder)
    path = folder / NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"An exported version must contain {NAME}. Received: {str(folder)!r}, which "
            "does not. Pass the folder of a version, such as exports/digits/1."
        )
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    matches = [_LINE.fullmatch(line) for line in lines]
    expected = {match[2]: match[1] for match in matches if match}
    faults = [f"line {i + 1} of {NAME}" for i, match in enumerate(matches) if not match]
    names = _names(folder)
    faults += [f"{name} is missing" for name in expected if name not in names]
    for name in names:
        if name not in expected:
            faults.append(f"{name} is not in {NAME}")
        elif file_hash(folder / name) != expected[name]:
            faults.append(f"{name} has changed")
    if faults or not expected:
        raise ValueError(
            "A version must contain the files as they were exported. Received: "
            f"{str(folder)!r}: {'; '.join(faults) or f'no line in {NAME}'}. Export or copy "
            "it again."
        )
    return len(expected)


def _names(folder):
    """Returns the sorted relative paths of all files except the manifest."""
    paths = [path for path in folder.rglob("*") if not path.is_dir()]
    return sorted({path.relative_to(folder).as_posix() for path in paths} - {NAME})
