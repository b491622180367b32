"""The decoder: any part of the outputs, in chunks of any size, equals the reference."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_perceiver import (
    CrossAttend,
    FourierPositionEncoding,
    InputQueries,
    LearnedPositionEncoding,
    LearnedQueries,
    ModalityQueries,
    PerceiverDecoder,
    PositionQueries,
)
from tests import contracts, reference
from tests.gradients import gradients
from tests.layers.blocks import check_gradients

B, N, D, M, C = 3, 6, 12, 11, 7


def _queries(kind):
    if kind == "learned":
        return LearnedQueries(10, 9)
    if kind == "fourier":
        return PositionQueries((5, 4), num_bands=3, max_resolution=(8, 8))
    if kind == "positions":
        return PositionQueries((5, 4), position_encoding=LearnedPositionEncoding(6))
    if kind == "inputs":
        return InputQueries()
    return ModalityQueries(
        {"a": PositionQueries((13,), num_bands=2), "b": LearnedQueries(2, 3)},
    )


_SLOW_ON_JAX = ["learned", "fourier", "positions"]
KINDS = [
    *(
        pytest.param(kind, marks=pytest.mark.fast_on("tensorflow", "torch"))
        for kind in _SLOW_ON_JAX
    ),
    "inputs",
    "modalities",
]


def _arrays():
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(B, N, D)).astype("float32")
    return latents, rng.normal(size=(B, M, C)).astype("float32")


def _decoder(kind, latents, inputs, **settings):
    settings = {"output_dim": 4, "chunk_size": 3, **settings}
    decoder = PerceiverDecoder(_queries(kind), **settings)
    decoder.build(latents.shape, inputs.shape)
    rng = np.random.default_rng(1)
    for weight in decoder.weights:
        weight.assign(rng.normal(0.1, 0.4, weight.shape))
    return decoder


def _numpy(x):
    return np.asarray(ops.convert_to_numpy(x))


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("learned", marks=pytest.mark.fast_on("torch")),
        pytest.param("inputs", marks=pytest.mark.fast_on("tensorflow", "torch")),
    ],
)
def test_contract(kind):
    def config():
        return {
            "queries": _queries(kind),
            "cross_attend": CrossAttend(num_heads=2, dropout=0.1),
            "chunk_size": 4,
        }

    contracts.check_layer(PerceiverDecoder, config, *_arrays())


@pytest.mark.parametrize("use_query_residual", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.fast_on("torch")
def test_equals_float64_reference(kind, use_query_residual):
    latents, inputs = _arrays()
    cross_attend = CrossAttend(
        num_heads=2, qk_dim=6, v_dim=8, use_query_residual=use_query_residual
    )
    decoder = _decoder(kind, latents, inputs, cross_attend=cross_attend)
    number = decoder.queries.num_queries(M)
    if kind == "inputs":
        query = inputs
    else:
        query = _numpy(decoder.queries(np.arange(number)[None]))
        query = np.repeat(query, B, axis=0)
    weights = reference.weights_of(decoder.cross_attend)
    expected = reference.cross_attend(
        *(query.astype("float64"), latents.astype("float64"), weights, 2),
        use_query_residual=use_query_residual,
    )
    expected = reference.linear(
        expected,
        {name: _numpy(getattr(decoder.head, name)) for name in ("kernel", "bias")},
    )
    outputs = _numpy(decoder(latents, inputs))
    assert outputs.shape == (B, number, 4)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.fast_on("torch")
def test_any_part_equals_the_whole(kind):
    latents, inputs = _arrays()
    decoder = _decoder(kind, latents, inputs)
    number = decoder.queries.num_queries(M)
    whole = _numpy(decoder(latents, inputs))
    rows = np.arange(number)[None]
    given = (inputs,) if kind == "inputs" else ()
    queries = _numpy(decoder.queries(rows, *given))
    order = np.random.default_rng(2).permutation(number)
    for indices in (order[None, :1], order[None, :7], order[None]):
        part = decoder.queries(indices, *given)
        np.testing.assert_array_equal(_numpy(part), queries[:, indices[0]])
        outputs = _numpy(decoder(latents, inputs, indices=indices))
        np.testing.assert_allclose(outputs, whole[:, indices[0]], rtol=1e-5, atol=1e-5)
    # Others for each example.
    indices = np.random.default_rng(3).integers(0, number, (B, 7))
    outputs = _numpy(decoder(latents, inputs, indices=indices))
    expected = np.take_along_axis(whole, indices[:, :, None], axis=1)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.fast_on("tensorflow", "torch")
def test_chunks_change_neither_outputs_nor_gradients(kind):
    latents, inputs = _arrays()
    found = []
    for chunk_size in (3, 100):
        decoder = _decoder(kind, latents, inputs, chunk_size=chunk_size)
        arrays = (latents, inputs) if kind == "inputs" else (latents,)

        def run(*arrays, decoder=decoder):
            return decoder(*arrays, training=True)

        found.append(gradients(run, *arrays, weights=decoder.trainable_weights))
    (outputs, of_chunks), (expected, of_whole) = found
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
    check_gradients(of_chunks, of_whole)
    assert any(np.abs(gradient).max() > 0.1 for gradient in of_chunks)


def test_every_chunk_drops_other_features():
    latents, inputs = _arrays()
    decoder = _decoder(
        "learned",
        *(latents, inputs),
        cross_attend=CrossAttend(dropout=0.5),
        output_dim=None,
        chunk_size=5,
    )
    for queries in decoder.queries.weights:
        queries.assign(np.ones(queries.shape))
    outputs = _numpy(decoder(latents, training=True))
    assert (outputs[:, :5] != outputs[:, 5:]).any()
    again = _numpy(decoder(latents, training=False))
    np.testing.assert_allclose(again[:, :5], again[:, 5:], rtol=1e-5, atol=1e-5)


def test_positions_of_the_published_grids():
    queries = PositionQueries((4,), num_bands=2, max_resolution=8)
    with_end = _numpy(queries(np.arange(4)[None]))[0]
    np.testing.assert_allclose(with_end[:, 0], np.linspace(-1, 1, 4), atol=1e-6)
    encoding = FourierPositionEncoding(2, 8, use_endpoint=False)
    queries = PositionQueries((4,), position_encoding=encoding)
    without = _numpy(queries(np.arange(4)[None]))[0]
    np.testing.assert_allclose(without[:, 0], -1 + 2 * np.arange(4) / 4, atol=1e-6)
    np.testing.assert_allclose(
        without[:, 1:3], np.sin(np.pi * without[:, :1] * [1, 4]), atol=1e-6
    )


def test_bad_arguments_name_the_fix():
    latents, _ = _arrays()
    with pytest.raises(TypeError, match="`queries` must be a query layer"):
        PerceiverDecoder("learned")
    with pytest.raises(ValueError, match="`chunk_size` must be a positive"):
        PerceiverDecoder(LearnedQueries(1, 8), chunk_size=0)
    with pytest.raises(ValueError, match="`inputs` are needed"):
        PerceiverDecoder(InputQueries())(latents)
    with pytest.raises(TypeError, match="`queries` must be a dict"):
        ModalityQueries([LearnedQueries(1, 8)])
    with pytest.raises(ValueError, match="at least one modality"):
        ModalityQueries({})
    with pytest.raises(ValueError, match="for Fourier features only"):
        PositionQueries((4,), 3, position_encoding=LearnedPositionEncoding(3))


def test_saved_model_has_its_decoder(tmp_path):
    latents, _ = _arrays()
    decoder = PerceiverDecoder(_queries("modalities"), output_dim=2)
    inputs = keras.Input(latents.shape[1:])
    model = keras.Model(inputs, decoder(inputs))
    assert model.output_shape == (None, 15, 2)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    expected = model.predict(latents, verbose=0)
    np.testing.assert_array_equal(again.predict(latents, verbose=0), expected)
