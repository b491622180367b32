"""Damaged files for the tests of commands."""

import zipfile


def write_archive(path):
    """Writes a `.keras` file that only passes the checks before Keras."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("config.json", "metadata.json", "model.weights.h5"):
            archive.writestr(name, "{}")


def flip(path, place):
    """Flips a bit of a file at a fraction of its length."""
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def cut(path, fraction):
    """Cuts a file to a fraction of its length."""
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
