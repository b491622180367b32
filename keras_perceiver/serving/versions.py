"""Checks before an export: the version number and what must be installed."""

import importlib.util
from pathlib import Path

from keras_perceiver._files import check_writable, next_number


def check_version(folder, version):
    """Raises unless a new version can be written to an export folder.

    Args:
        folder: Path of the folder that holds the numbered versions.
        version: Integer, number of the version to write.

    Raises:
        ValueError: if `version` is not a positive integer.
        FileExistsError: if it exists already.
        PermissionError: if the folder cannot be written to.
    """
    if not isinstance(version, int) or version < 1:
        raise ValueError(
            "`version` must be a positive integer. Received: "
            f"version={version!r}. Leave it out for the next free number."
        )
    target = Path(folder) / str(version)
    if target.exists():
        raise FileExistsError(
            "An exported version is never overwritten. Received: "
            f"version={version}, but {target} exists. "
            f"Leave `version` out for the next free number, {next_number(folder)}."
        )
    check_writable("folder", folder)


def check_serving():
    """Raises `ImportError` unless the protocol of TF Serving is installed."""
    if importlib.util.find_spec("tensorflow_serving") is None:
        raise ImportError(
            "The warm-up requests of an export need TF Serving's protocol, which is not "
            'installed. Install it with `pip install "keras_perceiver[serving]"`.'
        )
