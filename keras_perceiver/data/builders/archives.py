"""Checks of archives that were fetched by hand."""

import hashlib


def check_archive(path, url, sha256):
    """Raises unless a file is there and is the one that was published.

    Args:
        path: Path of the file.
        url: String, where it comes from.
        sha256: String, its digest, or `None` to take what is there.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: if it is another one.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"The archive must be in the manual folder. Received: no {path}. "
            f"Download {url} to it."
        )
    if sha256 is None:
        return
    with path.open("rb") as file:
        received = hashlib.file_digest(file, "sha256").hexdigest()
    if received != sha256:
        raise ValueError(
            f"The archive must have the SHA-256 digest {sha256}. Received: {received} of "
            f"{path}. It is cut off or another one: download {url} again."
        )
