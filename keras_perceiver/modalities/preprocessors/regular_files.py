"""Reading of regular files."""

import os
import stat

from keras_perceiver.modalities.preprocessors.file_rules import FileRule

_IS_REGULAR = FileRule(
    "Files must be regular files.", "a folder, pipe, socket or device", "Remove it"
)


def read_bytes(path, max_bytes):
    """Returns the bytes of a regular file, neither a pipe nor a device.

    Args:
        path: Path of the file.
        max_bytes: Integer, maximum size. It is checked before the file is read.

    Raises:
        FileRuleError: if it is not a regular file, or too large.
        OSError: if it cannot be read.
    """
    # Checked first, since opening a device may have side effects.
    _check_regular(os.stat(path))
    # Non-blocking, in case that a pipe has replaced the file in the meantime.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        found = os.fstat(file.fileno())
        _check_regular(found)
        FileRule(
            f"A file must have at most `max_bytes={max_bytes}` bytes.",
            "{} bytes",
            "Reduce it, or set `max_bytes`",
        ).check(found.st_size <= max_bytes, found.st_size)
        return file.read(max_bytes)


def _check_regular(found):
    _IS_REGULAR.check(stat.S_ISREG(found.st_mode))
