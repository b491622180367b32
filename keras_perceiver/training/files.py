"""Files that are never there by half."""

import os

UNFINISHED = "unfinished-"


def replace_file(path, write):
    """Writes a file under another name, and gives it its own when it is on the disk.

    A crash, a kill or a full disk leaves a file that was there before as it was.

    Args:
        path: Path of the file.
        write: Callable that takes the path to write to.
    """
    unfinished = path.with_name(f"{UNFINISHED}{path.name}")
    try:
        write(unfinished)
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    os.replace(unfinished, path)
    _flush_names(path.parent)


def _flush_names(folder):
    """Has the operating system write a renaming down, where it can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # Windows opens no folders
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
