import gc
import io
import threading
import time

import numpy as np
import pytest

from keras_perceiver.modalities.preprocessors.arrays import load_array

pytestmark = pytest.mark.one_backend


def test_array_is_read_while_other_threads_parse():
    expected = np.arange(6.0).reshape(2, 3)
    file = io.BytesIO()
    np.save(file, expected)
    arrays, num_threads, num_reads = [], 4, 300

    def read():
        arrays.extend(load_array(file.getvalue()) for _ in range(num_reads))

    def switch(phase, info):
        time.sleep(0)  # switches to another thread while parsing

    threshold = gc.get_threshold()
    gc.callbacks.append(switch)
    gc.set_threshold(5)
    try:
        threads = [threading.Thread(target=read) for _ in range(num_threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(switch)
    assert len(arrays) == num_threads * num_reads
    np.testing.assert_array_equal(arrays[-1], expected)


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([True])])
def test_only_numbers_are_read(array):
    file = io.BytesIO()
    np.save(file, array)
    with pytest.raises(ValueError, match="must contain an array of numbers"):
        load_array(file.getvalue())


def _npy(array, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.arange(6, dtype="float16"),
        np.array(7.0),
        np.zeros((0, 3)),
    ],
)
def test_arrays_of_any_layout(array):
    for version in ((1, 0), (2, 0)):
        read = load_array(_npy(array, version=version))
        np.testing.assert_array_equal(read, array)
        assert read.shape == array.shape


def test_the_header_is_compared_with_the_file():
    """Checks that the size in the header is verified before allocation."""
    content = _npy(np.zeros((4, 3)))
    shape, lie = b"(4, 3), }         ", b"(4000000000, 3), }"
    for bad, found in (
        (content.replace(shape, lie), "96 bytes for shape .4000000000, 3. of float64"),
        (content[:-1], "95 bytes"),
        (content + content, "bytes for shape"),  # two arrays in one file
    ):
        with pytest.raises(ValueError, match=f"of its header, and nothing.*{found}"):
            load_array(bad)
    for bad in (b"", content[:20], b"PK" + content):
        with pytest.raises(ValueError, match="magic|EOF|header"):
            load_array(bad)


def test_the_header_is_checked_before_the_array():
    seen = []
    load_array(_npy(np.zeros((4, 3), "int8")), lambda *args: seen.append(args))
    assert seen == [((4, 3), np.dtype("int8"))]
