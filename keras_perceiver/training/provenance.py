"""Versions, code and data of a run, which are compared when it is resumed."""

import functools
import hashlib
import warnings
from pathlib import Path

import keras
import numpy as np

import keras_perceiver
from keras_perceiver.serving.card import installed_versions


def provenance(splits):
    """Returns what the weights of a run depend on apart from its configuration.

    The fingerprint of the data is a digest of the numbers of batches and of the first
    batch of the validation data, which is not augmented.

    Args:
        splits: `Splits` of the data.

    Returns:
        Dict of strings: the versions of packages, and the digests `code` and `data`.
    """
    digest = hashlib.sha256()
    for dataset in (splits.train, splits.validation, splits.test):
        digest.update(f"{int(dataset.cardinality())}\n".encode())
    for batch in splits.validation.take(1).as_numpy_iterator():
        for array in map(np.asarray, keras.tree.flatten(batch)):
            is_text = array.dtype == object
            content = repr(array.tolist()).encode() if is_text else array.tobytes()
            digest.update(f"{array.dtype} {array.shape}\n".encode())
            digest.update(content)
    return {
        **installed_versions(),
        "code": _code_hash()[:12],
        "data": digest.hexdigest()[:12],
    }


@functools.cache
def _code_hash():
    """Returns a digest of the modules of this package, which a user may have edited."""
    folder = Path(keras_perceiver.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def warn_of_differences(saved, now):
    """Warns if a run is resumed with other versions, code or data.

    Args:
        saved: Dict in the checkpoint, see `provenance`.
        now: Dict of this process.
    """
    missing = "none"
    differing = [
        f"{name}: {saved.get(name, missing)} in the checkpoint, "
        f"{now.get(name, missing)} now"
        for name in {**saved, **now}
        if saved.get(name) != now.get(name)
    ]
    if differing:
        warnings.warn(
            "A run should be resumed with the versions, code and data that it was started "
            f"with. Received: {'; '.join(differing)}. Its weights may differ from those of "
            "an uninterrupted run.",
            stacklevel=2,
        )
