import keras
import numpy as np
import pytest

from keras_perceiver import attend
from tests import reference


def _arrays(rng, batch=2, num_queries=5, num_inputs=7, qk_dim=12, v_dim=8):
    shapes = [(num_queries, qk_dim), (num_inputs, qk_dim), (num_inputs, v_dim)]
    return [rng.normal(size=(batch, *shape)).astype("float32") for shape in shapes]


def _numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")))


@pytest.mark.parametrize("num_heads", [1, 2, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_float64_reference(num_heads, masked):
    rng = np.random.default_rng(0)
    q, k, v = _arrays(rng)
    mask = rng.random((2, 7)) > 0.4 if masked else None
    expected = reference.attention(
        *(x.astype("float64") for x in (q, k, v)), num_heads, mask
    )
    outputs = attend(q, k, v, num_heads=num_heads, inputs_mask=mask)
    np.testing.assert_allclose(_numpy(outputs), expected, atol=1e-5)


def test_large_scores_do_not_overflow():
    q, k, v = _arrays(np.random.default_rng(0))
    expected = reference.attention(*(x.astype("float64") for x in (q * 1e3, k, v)))
    np.testing.assert_allclose(_numpy(attend(q * 1e3, k, v)), expected, atol=1e-4)


def test_query_with_nothing_to_attend_to_is_zero():
    q, k, v = _arrays(np.random.default_rng(0))
    mask = np.array([[False] * 7, [True] * 7])
    outputs = _numpy(attend(q, k, v, num_heads=2, inputs_mask=mask))
    np.testing.assert_array_equal(outputs[0], 0)
    assert (outputs[1] != 0).all()


def test_masked_inputs_have_no_influence_even_as_nan():
    q, k, v = _arrays(np.random.default_rng(0))
    mask = np.arange(7) < np.array([[3], [6]])
    expected = _numpy(attend(q, k, v, inputs_mask=mask))
    k[~mask], v[~mask] = np.nan, np.nan
    np.testing.assert_array_equal(_numpy(attend(q, k, v, inputs_mask=mask)), expected)


@pytest.mark.parametrize(("dtype", "limit"), [("float16", 1e-3), ("bfloat16", 1e-2)])
def test_half_precision_accumulates_in_float32(dtype, limit):
    # 20,000 equal weights: their sum in half precision would stop at 2048 or 256.
    num_inputs = 20_000
    q = keras.ops.zeros((1, 2, 4), dtype)
    k = keras.ops.zeros((1, num_inputs, 4), dtype)
    v = np.random.default_rng(0).uniform(0, 2, (1, num_inputs, 3)).astype("float32")
    outputs = attend(q, k, keras.ops.cast(v, dtype))
    assert keras.backend.standardize_dtype(outputs.dtype) == dtype
    expected = np.broadcast_to(v.mean(1, keepdims=True), (1, 2, 3))
    np.testing.assert_allclose(_numpy(outputs), expected, rtol=limit)


def test_refuses_what_does_not_fit():
    q, k, v = _arrays(np.random.default_rng(0))
    with pytest.raises(
        ValueError, match=r"`v_dim` must be divisible.*v_dim=8.*multiple"
    ):
        attend(q, k, v, num_heads=3)
    with pytest.raises(ValueError, match="must have the same width.*Project"):
        attend(q, k[..., :-1], v)
    with pytest.raises(ValueError, match="`query` must have shape.*Reshape"):
        attend(q[0], k, v)
    with pytest.raises(ValueError, match="`num_heads` must be a positive integer"):
        attend(q, k, v, num_heads=0)
