"""Checks of archives that were downloaded by hand."""

import hashlib


def check_there(path, url):
    """Raises `FileNotFoundError` unless a file exists.

    Args:
        path: Path of the file.
        url: String, where to download it.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"The archive must be in the manual folder. Received: no {path}. "
            f"Download {url} to it."
        )


def check_digest(file, name, digest, url):
    """Raises `ValueError` unless a file has the published digest.

    Args:
        file: Binary file object, which is read from its current position to the end.
        name: String, name of the file in the error.
        digest: String, the algorithm and the hexadecimal digest, such as
            `"sha256:42dc..."`, or `None` to accept any file.
        url: String, where to download it.
    """
    if digest is None:
        return
    algorithm, _ = digest.split(":")
    # Detects damage only, so algorithms that are no longer secure are fine.
    received = hashlib.file_digest(
        file, lambda: hashlib.new(algorithm, usedforsecurity=False)
    ).hexdigest()
    received = f"{algorithm}:{received}"
    if received != digest:
        raise ValueError(
            f"The archive must have the digest {digest}. Received: {received} of {name}. "
            f"It is truncated or another version: download {url} again."
        )
