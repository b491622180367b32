"""Arguments of the commands: parsers, and checks that only need the standard library."""

import argparse
import importlib.util
import os
import shlex
import shutil
import sys
import zipfile
from pathlib import Path

from keras_perceiver import _runs
from keras_perceiver._checks import PRECISIONS, check_choice, nearest

SUPPRESS = argparse.SUPPRESS
PROGRAM = "keras-perceiver"
_ARCHIVED = {"config.json", "metadata.json", "model.weights.h5"}
BACKENDS = ("tensorflow", "jax", "torch")


class Parser(argparse.ArgumentParser):
    """A parser with one-line errors that suggest the nearest option.

    Args:
        command: String, the name of the subcommand.
        description: String, the text above the options.
        hint: String, the end of the error for an unknown option that is similar to no
            other.
    """

    def __init__(self, command, description, hint=""):
        self._names = []
        self._hint = hint
        super().__init__(
            prog=f"{PROGRAM} {command}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def add_argument(self, *names, **options):
        self._names += [name for name in names if name.startswith("--")]
        return super().add_argument(*names, **options)

    def parse_args(self, args=None, namespace=None):
        options, rest = self.parse_known_args(args, namespace)
        unknown = [argument for argument in rest if argument.startswith("-")]
        if unknown:
            name = unknown[0].split("=")[0]
            fix = nearest(name, self._names) or self._hint
            self.error(f"There is no option {name}. {fix}")
        if rest:
            self.error(f"There is an unexpected argument: {rest[0]!r}.")
        return options

    def error(self, message):
        message = message.rstrip()
        end = "" if message.endswith((".", "?")) else "."
        sys.exit(f"error: {message}{end} See `{self.prog} --help`.")


def check_backend():
    """Raises an error if Keras' backend is unknown or not installed."""
    backend = os.environ.get("KERAS_BACKEND")
    if backend is None:
        return
    check_choice("KERAS_BACKEND", backend, BACKENDS)
    if importlib.util.find_spec(backend) is None:
        raise ImportError(
            f"The backend must be installed. Received: KERAS_BACKEND={backend}, which "
            f"is missing. Install it with `pip install {backend}`, or choose another."
        )


def check_precision(precision):
    """Raises `ValueError` unless `--precision` is valid."""
    check_choice("--precision", precision, PRECISIONS)


def check_numbers(options, *names):
    """Raises `ValueError` unless numbers are positive or missing.

    Args:
        options: Namespace that a parser has returned.
        *names: Strings, attributes of `options`.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and not value > 0:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(
                f"{option} must be positive. Received: {option} {value}. Set it to 1 or "
                "more."
            )


def check_installed(package, purpose, requirements):
    """Raises `ImportError` unless a package can be imported.

    Args:
        package: String, name of the module.
        purpose: String, what it is needed for.
        requirements: String, arguments of `pip install`.
    """
    if importlib.util.find_spec(package) is None:
        raise ImportError(
            f"{purpose} must be installed. Received: no module {package!r}. Install it "
            f"with `pip install {requirements}`."
        )


def model_file(path):
    """Returns the path of a `.keras` file, given the path of the file or of its folder.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged.
    """
    path = Path(path)
    if path.is_dir():
        path = path / _runs.MODEL
    if path.suffix == ".keras" and path.is_file():
        _check_archive(path)
        return path
    raise FileNotFoundError(
        "The model must be a .keras file, or a folder with a model.keras. Received: "
        f"{str(path)!r}. {_near(path) or 'Correct the path.'}"
    )


def _check_archive(path):
    """Raises `ValueError` unless a `.keras` file is an intact archive of a model."""
    try:
        with zipfile.ZipFile(path) as archive:
            missing = sorted(_ARCHIVED - set(archive.namelist()))
            damaged = archive.testzip()
        fault = f"{damaged} in it has changed" if damaged else ""
        if missing:
            fault = f"{missing[0]} is missing in it"
    except Exception as error:  # zipfile raises errors of many classes
        fault = f"{error}"
    if fault:
        raise ValueError(
            f"The model must be an intact .keras file. Received: {str(path)!r}, which is "
            f"damaged ({fault}). Copy it again, or train it again."
        )


def check_file(name, path):
    """Raises `FileNotFoundError` unless a path is a file.

    Args:
        name: String, description of the file.
        path: String.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{name} must exist. Received: {str(path)!r}. "
            f"{_near(Path(path)) or 'Correct the path.'}"
        )


def check_folder(name, path):
    """Raises `FileNotFoundError` unless a path is a folder or `None`.

    Args:
        name: String, the option.
        path: String or `None`.
    """
    if path is not None and not Path(path).expanduser().is_dir():
        raise FileNotFoundError(
            f"{name} must be a folder. Received: {str(path)!r}. "
            f"{_near(Path(path)) or 'Correct the path.'}"
        )


def _near(path):
    """Returns a question that suggests the nearest path in the same folder."""
    if not path.parent.is_dir():
        return ""
    names = [str(other) for other in path.parent.iterdir()]
    return nearest(str(path), names)


def command_line(*arguments):
    """Returns a command line for users to copy."""
    program = Path(sys.argv[0])
    if program.stem == PROGRAM:
        words = [PROGRAM if shutil.which(PROGRAM) else _relative(program)]
    else:
        is_found = shutil.which("python") == sys.executable
        words = ["python" if is_found else _relative(sys.executable)]
        words += ["-m", "keras_perceiver"]
    backend = os.environ.get("KERAS_BACKEND")
    text = shlex.join([*words, *map(str, arguments)])
    return text if backend is None else f"KERAS_BACKEND={backend} {text}"


def _relative(path):
    """Returns a path relative to the current folder if it is inside."""
    path = Path(path)
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
