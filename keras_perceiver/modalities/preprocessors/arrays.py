"""Reading of NumPy files."""

import io
import math

import numpy as np

from keras_perceiver.modalities.preprocessors.file_rules import FileRule

_IS_NUMBERS = FileRule(
    "A NumPy file must contain an array of numbers.", "{}", "Convert the file"
)
_IS_WHOLE = FileRule(
    "A NumPy file must contain the array of its header, and nothing else.",
    "{} bytes for shape {} of {}",
    "Repair the file",
)
# Version 3 only differs in the encoding of field names, which numbers do not have.
_READ_HEADER = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def load_array(content, check=None):
    """Returns the numeric array in the bytes of a `.npy` file.

    The header is compared with the size of the file before an array is created, so that
    no more memory is allocated than the file contains.

    Args:
        content: Bytes.
        check: Callable that takes the shape and dtype of the header and raises an error
            if they are invalid, or `None`.
    """
    file = io.BytesIO(content)
    shape, is_fortran, dtype = _header(file)
    _IS_NUMBERS.check(dtype.kind in "iuf", dtype)
    if check is not None:
        check(shape, dtype)
    num_bytes = len(content) - file.tell()
    is_whole = num_bytes == math.prod(shape) * dtype.itemsize
    _IS_WHOLE.check(is_whole, num_bytes, shape, dtype)
    array = np.frombuffer(content, dtype, math.prod(shape), file.tell())
    return array.reshape(shape, order="F" if is_fortran else "C")


def _header(file, num_attempts=10):
    # NumPy parses the header with `ast.literal_eval`, which in some releases of Python
    # 3.11 and 3.12 fails occasionally while another thread parses. See
    # https://github.com/python/cpython/issues/106905.
    for _ in range(num_attempts - 1):
        try:
            return _read_header(file)
        except SystemError:
            file.seek(0)
    return _read_header(file)


def _read_header(file):
    version = np.lib.format.read_magic(file)
    _IS_NUMBERS.check(version in _READ_HEADER, f"a header of version {version}")
    return _READ_HEADER[version](file)
