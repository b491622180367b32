"""Atomic file writes, and numbered folders that are published atomically."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from keras_perceiver import _locks

UNFINISHED = "unfinished-"
MAKE_ROOM = "Make room, or choose another folder."
# Errors of the disk. Libraries raise them as exceptions of many classes.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


class WriteError(OSError):
    """Raised if the disk fails. The message names what was not written, and the fix."""


@contextlib.contextmanager
def writing(what, fix=MAKE_ROOM):
    """Context in which errors of the disk name what could not be written.

    Args:
        what: String, such as "The file 'a'".
        fix: String, a sentence.

    Raises:
        WriteError: for an error of the disk, whatever its class.
    """
    try:
        yield
    except WriteError:
        raise
    except Exception as error:
        reason = _disk_reason(error)
        if reason is None:
            raise
        message = f"{what} could not be written: {reason}. {fix}"
        raise WriteError(message) from error


def _disk_reason(error):
    """Returns the reason for an error of the disk, or `None` for other errors."""
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return os.strerror(error.errno)
    texts = map(os.strerror, _DISK_ERRORS)
    return next((text for text in texts if text in str(error)), None)


def replace_file(path, write, fix=MAKE_ROOM):
    """Writes a file atomically: under another name, then renamed once it is on the disk.

    A crash, a kill or a full disk leaves the previous file intact.

    Args:
        path: Path of the file.
        write: Callable that takes the path to write to.
        fix: String, see `writing`.

    Raises:
        WriteError: if the disk is full or fails.
    """
    unfinished = path.with_name(f"{UNFINISHED}{path.name}")
    try:
        with writing(f"The file {str(path)!r}", fix):
            write(unfinished)
            publish_file(unfinished, path)
    except Exception:
        unfinished.unlink(missing_ok=True)
        raise


def read_json(path):
    """Returns the dict in a JSON file.

    Raises:
        ValueError: if it is not JSON, or not a dict. The message has its path.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # UnicodeDecodeError is one
        raise ValueError(
            f"{path} must be a JSON file. Received: {error}. It may be damaged or "
            "incomplete. Copy or create it again."
        ) from error
    if not isinstance(found, dict):
        raise ValueError(
            f"{path} must contain a JSON object. Received: {type(found).__name__}. It may "
            "be damaged. Copy or create it again."
        )
    return found


def file_hash(path):
    """Returns the SHA-256 digest of a file, as hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    for left_behind in Path(folder).glob(f"{prefix}*"):
        with contextlib.suppress(OSError), _lock_of(left_behind) as is_locked:
            if is_locked:
                shutil.rmtree(left_behind, ignore_errors=True)
    with contextlib.ExitStack() as stack:
        while True:
            work = Path(tempfile.mkdtemp(dir=folder, prefix=prefix))
            try:
                stack.enter_context(_lock_of(work))
                break
            except (BlockingIOError, FileNotFoundError):
                continue  # another process removes it as if it were left behind
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        yield work


def _lock_of(folder):
    path = folder / _locks.NAME
    return _locks.locked(path, f"The folder {str(folder)!r}", is_reentrant=False)


def publish_folder(unfinished, folder, number, is_chosen):
    """Flushes all files of a folder to the disk and renames it to a number.

    Args:
        unfinished: Path of the folder to rename, on the same disk.
        folder: Path of the folder with the numbered folders.
        number: Integer, the new name.
        is_chosen: Boolean, whether the user has chosen the number. If another process
            has taken it in the meantime, `True` raises `FileExistsError`, and `False`
            uses the next free number.

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
        except OSError as error:
            if not (folder / str(number)).exists():
                raise
            if is_chosen:
                raise FileExistsError(
                    f"The folder must be new. Received: {str(folder / str(number))!r}, "
                    "which another process has just created. Choose another number, or "
                    "none for the next free one."
                ) from error
            number = next_number(folder)
        else:
            _flush_folder(folder)
            return published


def next_number(folder):
    """Returns the next free number in a folder of numbered folders, starting at 1."""
    numbers = [int(p.name) for p in Path(folder).glob("*") if p.name.isdigit()]
    return max(numbers, default=0) + 1


def new_numbered_folder(folder):
    """Creates the folder with the next free number, even if several processes do."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        numbered = folder / str(next_number(folder))
        with contextlib.suppress(FileExistsError):
            numbered.mkdir()
            return numbered


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
