"""Numbered versions in an export folder, each published whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

# The dot keeps it out of TF Serving's sight, which looks for numbers.
_UNFINISHED = ".unfinished-"


def next_version(folder):
    """Returns the number after the highest version in an export folder, at first 1."""
    versions = [int(p.name) for p in Path(folder).glob("*") if p.name.isdigit()]
    return max(versions, default=0) + 1


def check_version(folder, version):
    """Raises unless a new version can be written to an export folder.

    Args:
        folder: Path of the folder that holds the numbered versions.
        version: Integer, number of the version to write.

    Raises:
        ValueError: if `version` is not a positive integer.
        FileExistsError: if it is there already.
        PermissionError: if the folder cannot be written.
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
            f"Leave `version` out for the next free number, {next_version(folder)}."
        )
    check_writable("folder", folder)


def check_writable(name, folder):
    """Makes a folder where it is missing and raises unless a file can be written there.

    Args:
        name: String, what the error calls the folder.
        folder: Path of the folder.

    Raises:
        PermissionError: if the folder cannot be made or written.
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


@contextlib.contextmanager
def unfinished_folder(folder):
    """Gives a folder to work in beside the versions, and removes it in any case.

    One that a killed export left behind is removed by the next: the lock on it went
    with its process.
    """
    for left_behind in Path(folder).glob(f"{_UNFINISHED}*"):
        with contextlib.suppress(OSError), _locked(left_behind):
            shutil.rmtree(left_behind)
    with contextlib.ExitStack() as stack:
        while True:
            work = stack.enter_context(
                tempfile.TemporaryDirectory(dir=folder, prefix=_UNFINISHED)
            )
            # Another export may have taken it for left behind before it had a lock.
            with contextlib.suppress(OSError):
                stack.enter_context(_locked(work))
                if os.path.exists(work):
                    break
        yield Path(work)


@contextlib.contextmanager
def _locked(folder):
    """Holds the lock on a folder; `OSError` if another process holds it."""
    import fcntl  # not on Windows, where the rest of the package works

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def publish(unfinished, folder, version, is_chosen):
    """Renames to a version, or to the next free one if another export was faster.

    Before that everything goes to the disk itself, so that not even a power cut leaves
    a version with half a file in it.
    """
    _synchronize(unfinished)
    while True:
        try:
            published = unfinished.rename(folder / str(version))
        except OSError:
            if is_chosen or not (folder / str(version)).exists():
                raise
            version = next_version(folder)
        else:
            _synchronize_one(folder)
            return published


def write_if_missing(path, text):
    """Writes a text file whole, unless there is one already."""
    if path.exists():
        return
    with unfinished_folder(path.parent) as work:
        unfinished = work / path.name
        unfinished.write_text(text)
        publish_file(unfinished, path)


def publish_file(unfinished, path):
    """Renames a file to its place, when it is on the disk itself."""
    _synchronize_one(unfinished)
    os.replace(unfinished, path)
    _synchronize_one(path.parent)


def _synchronize(folder):
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            _synchronize_one(os.path.join(root, name))
        _synchronize_one(root)


def _synchronize_one(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
