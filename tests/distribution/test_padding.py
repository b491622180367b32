"""Padding of batches, for targets of any structure."""

import numpy as np
import pytest
import tensorflow as tf

from keras_perceiver.distribution import padding


@pytest.mark.one_backend
@pytest.mark.parametrize("weight", [None, 1.0])
def test_any_structure_of_inputs_and_targets(weight):
    inputs = {"a": np.arange(5), "b": np.zeros((5, 2))}
    targets = {"flow": np.ones((5, 2, 2)), "label": np.arange(5)}
    dataset = tf.data.Dataset.from_tensor_slices((inputs, targets)).batch(3)
    rows = list(padding.padded(dataset, 2, weight).as_numpy_iterator())
    assert [len(y["label"]) for _, y, _ in rows] == [4, 2]
    x, y, weights = rows[0]
    np.testing.assert_array_equal(x["a"], [0, 1, 2, 2])
    np.testing.assert_array_equal(y["label"], [0, 1, 2, 2])
    assert y["flow"].shape == (4, 2, 2)
    expected = 4 / 3 if weight is None else 1.0
    np.testing.assert_allclose(weights, [expected] * 3 + [0], rtol=1e-6)
    assert padding.mean_padding(dataset, 2) == pytest.approx(6 / 5)
