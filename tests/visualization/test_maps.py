"""Attention maps against float64 NumPy."""

import numpy as np
import pytest
from keras import ops

from keras_perceiver import (
    Audio,
    CrossAttend,
    Image,
    InputQueries,
    Perceiver,
    PerceiverClassifier,
    PerceiverDecoder,
    PerceiverDensePredictor,
    PositionQueries,
    SelfAttend,
    attention_maps,
)
from tests import reference

SMALL = {
    "num_latents": 5,
    "latent_dim": 16,
    "num_blocks": 2,
    "num_self_attends_per_block": 1,
    "self_attend": SelfAttend(num_heads=2),
}


def _numpy(x):
    return np.asarray(ops.convert_to_numpy(ops.stop_gradient(x)))


def _reference_maps(model, elements, num_heads, mask):
    """Yields scores and weights `(B, H, N, M)` of each cross-attend, in float64."""
    trunk = model.encoder.iterative_attention
    latents = np.asarray(model.encoder.latent_array.latents.numpy(), "float64")
    latents = np.broadcast_to(latents, (len(elements), *latents.shape))
    for i, layer in enumerate(trunk.cross_attends):
        w = reference.weights_of(layer)
        query = reference.linear(
            reference.layer_norm(latents, w["query_norm"]), w["query"]
        )
        key = reference.linear(
            reference.layer_norm(elements, w["inputs_norm"]), w["key"]
        )
        query, key = (np.stack(np.split(x, num_heads, -1), 1) for x in (query, key))
        scores = query @ key.swapaxes(-1, -2) / np.sqrt(query.shape[-1])
        scores[np.broadcast_to(~mask[:, None, None], scores.shape)] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        yield scores, weights / weights.sum(-1, keepdims=True)
        latents = reference.cross_attend(latents, elements, w, num_heads, mask)
        for layer in trunk.latent_transformers[min(i, 0)].self_attends:
            latents = reference.self_attend(latents, reference.weights_of(layer), 2)


@pytest.mark.fast_on("tensorflow", "torch")
def test_maps_of_two_modalities_equal_the_reference():
    encoder = Perceiver(
        {
            "image": Image((4, 6, 1), num_bands=2, patch_size=(1, 2), use_mask=True),
            "audio": Audio(48, sample_rate=48, patch_size=4, num_bands=3),
        },
        cross_attend=CrossAttend(num_heads=2, qk_dim=6),
        **SMALL,
    )
    model = PerceiverClassifier(encoder, num_classes=3)
    rng = np.random.default_rng(0)
    inputs = {
        "image": rng.normal(size=(2, 4, 6, 1)).astype("float32"),
        "image_mask": np.ones((2, 4, 6), bool),
        "audio": rng.normal(size=(2, 48)).astype("float32"),
    }
    inputs["image_mask"][0, :2] = False
    inputs["image"][0, 0] = np.nan  # has no influence
    # Not a divisor of 24 elements, and the scores of two of five latents at once.
    maps = attention_maps(model, inputs, chunk_size=15)
    assert maps.grids == {"image": (4, 3), "audio": (12,)}
    assert maps.num_inputs.tolist() == [2 * 3 + 12, 4 * 3 + 12]
    assert len(maps) == 2

    elements, mask = (np.asarray(x) for x in _byte_array(encoder, inputs))
    expected = list(_reference_maps(model, elements.astype("float64"), 2, mask))
    for i, (scores, weights) in enumerate(expected):
        for ours, theirs in ((maps.scores(i), scores), (maps.weights(i), weights)):
            assert ours["image"].shape == (2, 2, 5, 4, 3)
            assert ours["audio"].shape == (2, 2, 5, 12)
            joined = np.concatenate(
                [ours["image"].reshape(2, 2, 5, 12), ours["audio"]], axis=-1
            )
            np.testing.assert_allclose(joined, theirs, atol=1e-5)
        both = maps.weights(i)
        total = both["image"].sum((-1, -2)) + both["audio"].sum(-1)
        np.testing.assert_allclose(total, 1, atol=1e-5)
        assert (both["image"][0, :, :, :2] == 0).all()
        some = maps.weights(i - 2, latents=[3, -5])["audio"]
        np.testing.assert_allclose(some, both["audio"][:, :, [3, 0]], atol=1e-6)
        some = maps.weights(i, latents=3)["audio"]
        np.testing.assert_allclose(some, both["audio"][:, :, [3]], atol=1e-6)
    entropy = [
        -np.sum(np.where(w > 0, w * np.log(np.where(w > 0, w, 1)), 0), -1)
        for _, w in expected
    ]
    np.testing.assert_allclose(maps.entropy(), entropy, atol=1e-5)
    for call in (lambda: maps.scores(2), lambda: maps.weights(0, [5])):
        with pytest.raises(IndexError, match="Received"):
            call()


def _byte_array(encoder, inputs):
    from keras import ops

    elements, mask = encoder.byte_array({k: ops.array(x) for k, x in inputs.items()})
    return ops.convert_to_numpy(elements), ops.convert_to_numpy(mask)


@pytest.mark.fast_on("tensorflow", "torch")
def test_a_fully_masked_example_has_no_weights():
    encoder = Perceiver(Image((4, 4, 1), num_bands=2, use_mask=True), **SMALL)
    inputs = {
        "image": np.ones((2, 4, 4, 1), "float32"),
        "image_mask": np.zeros((2, 4, 4), bool),
    }
    inputs["image_mask"][1, 0, 0] = True
    weights = attention_maps(encoder, inputs).weights(0)["image"]
    assert (weights[0] == 0).all()
    assert (weights[1, ..., 0, 0] == 1).all()


def test_other_models_and_inputs_are_refused():
    with pytest.raises(TypeError, match="`model` must be"):
        attention_maps(object(), np.zeros((1, 4, 4, 1)))
    encoder = Perceiver(Image((4, 4, 1), num_bands=2), **SMALL)
    with pytest.raises(ValueError, match="must have shape"):
        attention_maps(encoder, np.zeros((1, 5, 4, 1), "float32"))


@pytest.mark.parametrize("uses_inputs", [False, True])
@pytest.mark.fast_on("torch")
def test_outputs_attend_to_latents_as_in_the_reference(uses_inputs):
    queries = InputQueries() if uses_inputs else PositionQueries((4, 6), num_bands=2)
    encoder = Perceiver(Image((4, 6, 1), num_bands=2), **SMALL)
    decoder = PerceiverDecoder(queries, CrossAttend(num_heads=2, qk_dim=6))
    model = PerceiverDensePredictor(encoder, 1, decoder)
    images = np.random.default_rng(0).normal(size=(2, 4, 6, 1)).astype("float32")
    found = attention_maps(model, images).output_weights([0, 7, 23])
    assert found.shape == (2, 2, 3, encoder.output_shape[1])
    latents = _numpy(encoder(images)).astype("float64")
    elements = _numpy(encoder.modality(images)).astype("float64")
    block = model.decoder.cross_attend
    w = reference.weights_of(block)
    query = elements if uses_inputs else elements[..., 1:][:1]  # positions alone
    query = reference.linear(reference.layer_norm(query, w["query_norm"]), w["query"])
    key = reference.linear(reference.layer_norm(latents, w["inputs_norm"]), w["key"])
    query, key = (np.stack(np.split(x, 2, -1), 1) for x in (query, key))
    scores = query[:, :, [0, 7, 23]] @ key.swapaxes(-1, -2) / np.sqrt(3)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(found, weights, atol=1e-5)
    with pytest.raises(ValueError, match="must have a decoder"):
        attention_maps(encoder, images).output_weights([0])
