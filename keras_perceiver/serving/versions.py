"""Checks before an export: version number, format and installed packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from keras_perceiver._checks import check_choice
from keras_perceiver._files import check_writable, next_number

FORMATS = {"onnx": ".onnx", "litert": ".tflite"}
WEIGHTS = ("float32", "float16", "bfloat16", "int8")
# The packages that write a file of a format, and those that verify it.
_WRITERS = {"onnx": ("tf2onnx", "onnx"), "litert": ()}
_READERS = {"onnx": ("onnxruntime",), "litert": ("ai_edge_litert",)}


def check_version(folder, version):
    """Raises an error unless a new version can be written to an export folder.

    Args:
        folder: Path of the folder with the numbered versions.
        version: Integer, number of the version to write.

    Raises:
        ValueError: if `version` is not a positive integer.
        FileExistsError: if it exists already.
        PermissionError: if the folder is not writable.
    """
    if not isinstance(version, int) or version < 1:
        raise ValueError(
            "`version` must be a positive integer. Received: "
            f"version={version!r}. Remove it to use the next free number."
        )
    target = Path(folder) / str(version)
    if target.exists():
        raise FileExistsError(
            "An exported version is never overwritten. Received: "
            f"version={version}, but {target} exists. "
            f"Remove `version` to use the next free number, {next_number(folder)}."
        )
    check_writable("folder", folder)


def check_serving() -> None:
    """Raises `ImportError` unless the protocol of TF Serving is installed."""
    if importlib.util.find_spec("tensorflow_serving") is None:
        raise ImportError(
            "The warm-up requests of an export need TF Serving's protocol, which is not "
            "installed. Install it with `pip install tensorflow-serving-api`."
        )


def check_format(format, path, use_check=True):
    """Raises an error unless a file of a format can be written.

    Args:
        format: String, a key of `FORMATS`.
        path: Path of the file to write.
        use_check: Boolean, whether the file is compared with the model as well.

    Raises:
        ValueError: if the format is unknown, or if the file has another extension.
        ImportError: if a package that the format needs is not installed.
        FileExistsError: if the file exists already.
    """
    check_choice("`format`", format, list(FORMATS))
    path = Path(path)
    if path.suffix != FORMATS[format]:
        raise ValueError(
            f"A file for {format} must end with {FORMATS[format]!r}. Received: "
            f"path={str(path)!r}. Rename it."
        )
    needed = _WRITERS[format] + (_READERS[format] if use_check else ())
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        packages = [name.replace("_", "-") for name in needed]
        raise ImportError(
            f"A file for {format} needs {', '.join(packages)}. Received: no module "
            f"{missing[0]!r}. Install it with `pip install {' '.join(packages)}`."
        )
    if path.exists():
        raise FileExistsError(
            f"An exported file is never overwritten. Received: path={str(path)!r}, "
            "which exists. Choose another name, or remove it."
        )


def check_weights(weights):
    """Raises `ValueError` unless weights can be stored in this format."""
    check_choice("`weights`", weights, WEIGHTS)
