"""Atomic file writes, and numbered folders that are published atomically."""

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows, folders are not locked
    fcntl = None  # type: ignore[assignment]

UNFINISHED = "unfinished-"


def replace_file(path, write):
    """Writes a file atomically: under another name, then renamed once it is on the disk.

    A crash, a kill or a full disk leaves the previous file intact.

    Args:
        path: Path of the file.
        write: Callable that takes the path to write to.
    """
    unfinished = path.with_name(f"{UNFINISHED}{path.name}")
    try:
        write(unfinished)
        publish_file(unfinished, path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def read_json(path):
    """Returns the dict in a JSON file.

    Raises:
        ValueError: if it is no JSON, or no dict.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # UnicodeDecodeError is one
        raise ValueError(
            f"{path} must be a JSON file. Received: {error}. Get the file again."
        ) from error
    if not isinstance(found, dict):
        raise ValueError(
            f"{path} must contain a JSON object. Received: {type(found).__name__}. Get the "
            "file again."
        )
    return found


def write_if_missing(path, text):
    """Writes a text file atomically, unless it exists."""
    if path.exists():
        return
    with unfinished_folder(path.parent) as work:
        unfinished = work / path.name
        unfinished.write_text(text)
        publish_file(unfinished, path)


def publish_file(unfinished, path):
    """Flushes a file to the disk and renames it."""
    _flush_file(unfinished)
    os.replace(unfinished, path)
    _flush_folder(path.parent)


@contextlib.contextmanager
def unfinished_folder(folder):
    """Context manager for a temporary folder inside `folder`, which is removed at the end.

    If a process was killed, the next one removes its folder, whose lock was released
    with the process.
    """
    # The name hides it from TF Serving, which looks for numbers.
    prefix = f".{UNFINISHED}"
    if fcntl:
        for left_behind in Path(folder).glob(f"{prefix}*"):
            with contextlib.suppress(OSError), _locked(left_behind):
                shutil.rmtree(left_behind)
    with contextlib.ExitStack() as stack:
        while True:
            work = stack.enter_context(
                tempfile.TemporaryDirectory(dir=folder, prefix=prefix)
            )
            if not fcntl:
                break
            # Another process may have removed it before it was locked.
            with contextlib.suppress(OSError):
                stack.enter_context(_locked(work))
                if os.path.exists(work):
                    break
        yield Path(work)


@contextlib.contextmanager
def _locked(folder):
    """Locks a folder. Raises `OSError` if another process holds the lock."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def publish_folder(unfinished, folder, number, is_chosen):
    """Flushes all files of a folder to the disk and renames it to a number.

    Args:
        unfinished: Path of the folder to rename, on the same disk.
        folder: Path of the folder with the numbered folders.
        number: Integer, the new name.
        is_chosen: Boolean, whether the user has chosen the number. If another process
            has taken it in the meantime, `True` raises `OSError`, and `False` uses the
            next free number.

    Returns:
        Path of the numbered folder.
    """
    for root, _, names in os.walk(unfinished, topdown=False):
        for name in names:
            _flush_file(os.path.join(root, name))
        _flush_folder(root)
    while True:
        try:
            published = unfinished.rename(folder / str(number))
        except OSError:
            if is_chosen or not (folder / str(number)).exists():
                raise
            number = next_number(folder)
        else:
            _flush_folder(folder)
            return published


def next_number(folder):
    """Returns the next free number in a folder of numbered folders, starting at 1."""
    numbers = [int(p.name) for p in Path(folder).glob("*") if p.name.isdigit()]
    return max(numbers, default=0) + 1


def check_writable(name, folder):
    """Creates a folder if it is missing, and raises unless it is writable.

    Args:
        name: String, the name of the argument in the error.
        folder: Path of the folder.

    Raises:
        PermissionError: if the folder cannot be created or written to.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise PermissionError(
            f"`{name}` must be a writable folder. Received: "
            f"{name}={str(folder)!r} ({error}). "
            "Choose another folder, or change its permissions."
        ) from error


def _flush_file(path):
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder):
    """Flushes the entries of a folder to the disk, if the system supports it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # Windows cannot open folders
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
