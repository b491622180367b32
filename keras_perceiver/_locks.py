"""Locks for files and folders that only one process at a time may write."""

import contextlib
import json
import os
import socket
import threading
import time
import warnings
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows, nothing is locked
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"  # name of the lock file of a folder; servers and tables ignore it
# From the paths of lock files to how often this process holds them, their descriptors,
# and whether these are locked.
_held: dict[Path, list] = {}
_guard = threading.RLock()


@contextlib.contextmanager
def locked(path, what, is_reentrant=True):
    """Context in which no other process holds the same lock.

    The lock belongs to the process: the operating system releases it when the process
    exits for any reason. The lock file contains the process that holds it.

    Args:
        path: Path of the lock file, which is created, and removed at the end.
        what: String, what is locked, for the error, such as "The run folder 'a'".
        is_reentrant: Boolean, whether this process may hold it already.

    Yields:
        Boolean, whether it is locked: some file systems do not support locks.

    Raises:
        BlockingIOError: if another process holds it. The message names this process.
    """
    path = Path(path).resolve()
    with _guard:
        if path not in _held:
            _held[path] = [0, *_acquire(path, what)]
        elif not is_reentrant:
            raise BlockingIOError(f"{what} is already in use by this process.")
        _held[path][0] += 1
    try:
        yield _held[path][2]
    finally:
        with _guard:
            _held[path][0] -= 1
            if not _held[path][0]:
                _, descriptor, _ = _held.pop(path)
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
                os.close(descriptor)


def _acquire(path, what):
    """Returns the descriptor of a lock file, and whether it is locked."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if fcntl is None:
            return descriptor, False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise BlockingIOError(
                f"{what} must be used by one process at a time. Received: {holder} uses "
                "it. Wait until that process ends, or stop it."
            ) from None
        except OSError as error:  # a file system without locks
            warnings.warn(
                f"{what} cannot be locked ({error}). Do not use it in another process.",
                stacklevel=4,
            )
            return descriptor, False
        if _is_at(descriptor, path):
            _write_holder(descriptor)
            return descriptor, True
        os.close(descriptor)  # its last holder has just removed it


def _is_at(descriptor, path):
    """Returns whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _write_holder(descriptor):
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    with contextlib.suppress(OSError):  # on a full disk, the lock file is empty
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(holder).encode())


def _holder(descriptor):
    """Returns a description of the process that holds a lock."""
    try:
        holder = json.loads(os.read(descriptor, 1000))
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):  # not written yet
        return "another process"
