"""Checks of archives that were fetched by hand."""

import hashlib


def check_there(path, url):
    """Raises `FileNotFoundError` unless a file is there.

    Args:
        path: Path of the file.
        url: String, where it comes from.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"The archive must be in the manual folder. Received: no {path}. "
            f"Download {url} to it."
        )


def check_digest(file, name, digest, url):
    """Raises `ValueError` unless a file is the one that was published.

    Args:
        file: Binary file at its beginning, which is read to its end.
        name: String, what to call it in the error.
        digest: String, the algorithm and the hexadecimal digest, such as
            `"sha256:42dc..."`; or `None` to take what is there.
        url: String, where it comes from.
    """
    if digest is None:
        return
    algorithm, _ = digest.split(":")
    # Against damage: who fetched the archive chose where from.
    received = hashlib.file_digest(
        file, lambda: hashlib.new(algorithm, usedforsecurity=False)
    ).hexdigest()
    received = f"{algorithm}:{received}"
    if received != digest:
        raise ValueError(
            f"The archive must have the digest {digest}. Received: {received} of {name}. "
            f"It is cut off or another one: download {url} again."
        )
