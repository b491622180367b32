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
        time.sleep(0)  # to another thread, amid the parsing

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
    with pytest.raises(TypeError, match="a NumPy array of numbers is needed"):
        load_array(file.getvalue())
