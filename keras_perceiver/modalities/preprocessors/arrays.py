"""NumPy files."""

import io

import numpy as np


def load_array(content):
    """Returns the array of numbers in the bytes of a `.npy` file."""
    array = _load(content)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf":
        found = getattr(array, "dtype", "several arrays")
        raise TypeError(f"a NumPy array of numbers is needed, not {found}")
    return array


def _load(content, num_attempts=10):
    # NumPy reads the header with `ast.literal_eval`, which some releases of Python 3.11
    # and 3.12 let fail, now and then, while another thread parses: nothing is wrong with
    # the file. See https://github.com/python/cpython/issues/106905.
    for _ in range(num_attempts - 1):
        try:
            return np.load(io.BytesIO(content), allow_pickle=False)
        except SystemError:
            continue
    return np.load(io.BytesIO(content), allow_pickle=False)
