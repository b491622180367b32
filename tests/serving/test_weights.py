import ml_dtypes
import numpy as np
import pytest

from keras_perceiver.serving.versions import check_weights
from keras_perceiver.serving.weights import quantized_copy, stored
from tests.serving.models import image_model


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("weights", "dtype", "error"),
    [("float16", "float16", 2**-11), ("bfloat16", ml_dtypes.bfloat16, 2**-8)],
)
def test_shorter_floats(weights, dtype, error):
    array = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
    smaller, scale = stored(array, weights)
    assert smaller.dtype == dtype
    assert scale == 1
    off = np.abs(smaller.astype("float32") / array - 1).max()
    assert error / 4 < off <= error


@pytest.mark.one_backend
def test_int8_has_a_scale_for_each_unit():
    array = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
    array *= np.float32([1, 100, 0])
    smaller, scale = stored(array, "int8")
    assert smaller.dtype == "int8"
    np.testing.assert_array_equal(np.abs(smaller).max(axis=0), [127, 127, 0])
    # At most half a quantization step.
    largest = np.abs(array).max(axis=0)
    assert (np.abs(smaller * scale - array) <= largest / 254 * 1.001).all()
    bias = array[:, 0]
    assert stored(bias, "int8")[0] is bias


@pytest.mark.one_backend
def test_bad_weights():
    with pytest.raises(ValueError, match="must be one of.*int4"):
        check_weights("int4")
    with pytest.raises(ValueError, match=r"float16 must be finite.*bfloat16"):
        stored(np.array([1e6], "float32"), "float16")


def test_quantized_copy_computes_with_the_stored_weights():
    model = image_model()
    before = model.get_weights()
    copy = quantized_copy(model, "int8")
    for weight, array in zip(copy.get_weights(), before, strict=True):
        smaller, scale = stored(array, "int8")
        np.testing.assert_allclose(weight, smaller * scale, rtol=1e-6)
    for after, array in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(after, array)
