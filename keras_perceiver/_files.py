"""Atomic file writes, and numbered folders that are published whole."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where two exports into one folder are not told apart
    fcntl = None

UNFINISHED = "unfinished-"


def replace_file(path, write):
    """Writes a file under another name and renames it once it is on the disk.

    A crash, a kill or a full disk leaves the previous file as it was.

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


def write_if_missing(path, text):
    """Writes a text file atomically, unless it exists."""
    if path.exists():
        return
    with unfinished_folder(path.parent) as work:
        unfinished = work / path.name
        unfinished.write_text(text)
        publish_file(unfinished, path)


def publish_file(unfinished, path):
    """Renames a file to its place, after it has been flushed to the disk."""
    _flush_file(unfinished)
    os.replace(unfinished, path)
    _flush_folder(path.parent)


@contextlib.contextmanager
def unfinished_folder(folder):
    """Context that gives a temporary folder inside `folder`, and removes it at the end.

    The folder of a process that was killed is removed by the next one: the lock on it
    went with its process.
    """
    # The dot hides it from TF Serving, which looks for numbers.
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
            # Another process may have removed it before it had a lock.
            with contextlib.suppress(OSError):
                stack.enter_context(_locked(work))
                if os.path.exists(work):
                    break
        yield Path(work)


@contextlib.contextmanager
def _locked(folder):
    """Holds the lock on a folder; `OSError` if another process holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def publish_folder(unfinished, folder, number, is_chosen):
    """Renames a folder to a number, after all its files have been flushed to the disk.

    Args:
        unfinished: Path of the folder to rename, on the same disk.
        folder: Path of the folder that holds the numbered ones.
        number: Integer.
        is_chosen: Boolean. `False` takes the next free number if `number` was taken by
            another process in the meantime; `True` raises `OSError`.

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
    """Returns the number after the highest of the numbered folders, at first 1."""
    numbers = [int(p.name) for p in Path(folder).glob("*") if p.name.isdigit()]
    return max(numbers, default=0) + 1


def check_writable(name, folder):
    """Creates a folder where it is missing and raises unless it can be written to.

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
            f"`{name}` must be a folder that can be written. Received: "
            f"{name}={str(folder)!r} ({error}). "
            "Choose another folder, or change its permissions."
        ) from error


def _flush_file(path):
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder):
    """Flushes the names in a folder to the disk, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # Windows opens no folders
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
