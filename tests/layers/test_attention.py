import keras
import numpy as np
import pytest

from keras_perceiver import attend
from keras_perceiver.layers import attention
from tests import reference
from tests.gradients import gradients


def _arrays(rng, batch=2, num_queries=5, num_inputs=7, qk_dim=12, v_dim=8):
    shapes = [(num_queries, qk_dim), (num_inputs, qk_dim), (num_inputs, v_dim)]
    return [rng.normal(size=(batch, *shape)).astype("float32") for shape in shapes]


def _numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")))


@pytest.fixture(params=["as chosen", "plain", "chunked", "one chunk"])
def form(request, monkeypatch):
    """Each form of attention in turn, the chunked one with chunks of three inputs."""
    if request.param != "as chosen":
        monkeypatch.setattr(attention, "_is_fused", lambda *_: False)
    if "chunk" in request.param:
        monkeypatch.setattr(attention, "_MAX_PLAIN_SCORES", 0)
        size = 3 if request.param == "chunked" else 7
        monkeypatch.setattr(attention, "_chunk_size", lambda *_: size)
    return request.param


@pytest.mark.usefixtures("form")
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


# Other backends' chunks are compiled wherever `gradients` is.
if keras.backend.backend() == "torch":

    @pytest.mark.usefixtures("form")
    def test_torch_compiles_what_is_around_attention():
        import torch

        arrays = _arrays(np.random.default_rng(0))

        def run(*tensors):
            return 2 * attend(*tensors, num_heads=2)

        expected, gradients_expected = gradients(run, *arrays)
        outputs, found = gradients(torch.compile(run), *arrays)
        for a, b in zip(
            (outputs, *found), (expected, *gradients_expected), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("form")
def test_large_scores_do_not_overflow():
    q, k, v = _arrays(np.random.default_rng(0))
    expected = reference.attention(*(x.astype("float64") for x in (q * 1e3, k, v)))
    np.testing.assert_allclose(_numpy(attend(q * 1e3, k, v)), expected, atol=1e-4)


@pytest.mark.usefixtures("form")
def test_query_with_nothing_to_attend_to_is_zero():
    q, k, v = _arrays(np.random.default_rng(0))
    mask = np.array([[False] * 7, [True] * 7])
    outputs = _numpy(attend(q, k, v, num_heads=2, inputs_mask=mask))
    np.testing.assert_array_equal(outputs[0], 0)
    assert (outputs[1] != 0).all()


@pytest.mark.usefixtures("form")
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


@pytest.mark.parametrize("num_inputs", [1, 3, 7, 12])
@pytest.mark.parametrize("num_heads", [1, 2])
@pytest.mark.parametrize(
    "kind", ["keys and values", "keys are values", "masked", "scaled", "everything"]
)
def test_forms_have_the_same_values_and_gradients(
    kind, num_heads, num_inputs, monkeypatch
):
    rng = np.random.default_rng(0)
    q, k, v = _arrays(rng, num_inputs=num_inputs, qk_dim=8, v_dim=6)
    scale = rng.uniform(0.5, 2, k.shape[:2]).astype("float32")
    keep = rng.random(k.shape[:2]) > 0.3
    keep[1] = False
    is_scaled, is_masked = (
        kind in ("scaled", "everything"),
        kind
        in (
            "masked",
            "everything",
        ),
    )
    arrays = [q, k, *([v] if kind == "keys and values" else []), *[scale] * is_scaled]

    def run(query, key, *rest):
        return attend(
            query,
            key,
            rest[0] if kind == "keys and values" else key,
            num_heads=num_heads,
            inputs_mask=keep if is_masked else None,
            inputs_scale=rest[-1] if is_scaled else None,
        )

    expected, expected_gradients = gradients(run, *arrays)
    monkeypatch.setattr(attention, "_is_fused", lambda *_: False)
    monkeypatch.setattr(attention, "_MAX_PLAIN_SCORES", 0)
    monkeypatch.setattr(attention, "_chunk_size", lambda *_: 3)
    outputs, found = gradients(run, *arrays)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
    for a, b in zip(found, expected_gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_form_follows_from_the_shapes(monkeypatch):
    calls = []
    chunked = attention.chunked_attention
    monkeypatch.setattr(
        attention,
        "chunked_attention",
        lambda *args, **kwargs: calls.append(kwargs) or chunked(*args, **kwargs),
    )
    q, k, v = _arrays(np.random.default_rng(0), 1, 512, 2048, 2, 2)
    attend(q, k, v, inputs_mask=k[..., 0] > 0)
    assert not calls
    long = np.concatenate([k, k[:, :1]], 1)
    attend(q, long, long, inputs_mask=long[..., 0] > 0)
    assert [call["chunk_size"] for call in calls] == [4096]
    # Without a mask torch's own kernel does it.
    attend(q, long, long)
    assert len(calls) == (1 if keras.backend.backend() == "torch" else 2)


def test_unknown_number_of_inputs():
    class AttendToItself(keras.layers.Layer):
        def call(self, x):
            return attend(x, x, x)

    inputs = keras.Input((None, 2))
    model = keras.Model(inputs, AttendToItself()(inputs))
    for num_inputs in (1, 5, 3000):
        x = np.random.default_rng(0).normal(size=(1, num_inputs, 2)).astype("float32")
        expected = reference.attention(*[x.astype("float64")] * 3)
        np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-5)


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
