"""Answers equal those of the model, and hidden elements those of a shorter byte array."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_perceiver import (
    Array,
    Audio,
    Image,
    InputQueries,
    LearnedQueries,
    Perceiver,
    PerceiverClassifier,
    PerceiverDecoder,
    PerceiverDensePredictor,
    PerceiverMultiLabelClassifier,
    PerceiverSegmenter,
    PointCloud,
    PositionQueries,
    attention_maps,
)
from keras_perceiver.explorer import Explorer
from tests.explorer.small import SMALL


def _image(rng, shape=(4, 6, 1)):
    return rng.normal(size=shape).astype("float32")


def _two_modalities(use_mask=False):
    return {
        "image": Image((4, 6, 1), num_bands=2, use_mask=use_mask),
        "audio": Audio(48, 48, patch_size=4, num_bands=2),
    }


@pytest.mark.fast_on("torch")
def test_the_answer_is_that_of_the_model():
    rng = np.random.default_rng(0)
    model = PerceiverMultiLabelClassifier(
        Perceiver(_two_modalities(use_mask=True), **SMALL), 3, class_names=[*"abc"]
    )
    inputs = {"image": _image(rng), "audio": rng.uniform(-1, 1, 48).astype("float32")}
    batch = {name: array[None] for name, array in inputs.items()}
    batch["image_mask"] = np.ones((1, 4, 6), bool)
    explorer = Explorer(model)
    answer = explorer.answer(inputs)
    logits = ops.convert_to_numpy(model(batch, training=False))[0]
    np.testing.assert_allclose(answer.outputs["logits"], logits, atol=1e-5)
    np.testing.assert_allclose(
        answer.probabilities, 1 / (1 + np.exp(-logits)), rtol=1e-5
    )
    assert answer.labels == list("abc")
    assert answer.grid_output is None
    maps = attention_maps(model, batch)
    assert explorer.num_cross_attends == len(maps) == 2
    for read, latent in ((0, None), (1, 2)):
        found = answer.attention(read, latent)
        chosen = slice(None) if latent is None else [latent]
        for name, weights in maps.weights(read).items():
            expected = weights[0][:, chosen].mean(axis=(0, 1)) * (24 + 12)
            np.testing.assert_allclose(found[name], expected, atol=1e-4)


def _masked(model, batch, name):
    """Returns logits of a model whose encoder gets elements without a modality."""
    encoder = model.encoder
    elements = encoder.byte_array(batch)
    kept = elements[:, :24] if name == "audio" else elements[:, 24:]
    latents = encoder.iterative_attention(encoder.latent_array(kept), kept)
    return model.head(ops.mean(latents, axis=1))


@pytest.mark.fast_on("torch")
@pytest.mark.parametrize("name", ["image", "audio"])
def test_a_hidden_modality_is_not_in_the_byte_array(name):
    rng = np.random.default_rng(0)
    model = PerceiverClassifier(Perceiver(_two_modalities(), **SMALL), 3)
    inputs = {"image": _image(rng), "audio": rng.uniform(-1, 1, 48).astype("float32")}
    batch = {n: array[None] for n, array in inputs.items()}
    expected = ops.convert_to_numpy(_masked(model, batch, name))[0]
    explorer = Explorer(model)
    hidden = explorer.answer(inputs, {name: True})
    missing = explorer.answer({n: x for n, x in inputs.items() if n != name})
    for answer in (hidden, missing):
        np.testing.assert_allclose(answer.outputs["logits"], expected, atol=1e-5)
        assert (answer.attention(0)[name] == 0).all()
    whole = explorer.answer(inputs).outputs["logits"]
    assert np.abs(whole - expected).max() > 1e-3


@pytest.mark.fast_on("torch")
def test_values_of_hidden_elements_do_not_matter():
    rng = np.random.default_rng(0)
    model = PerceiverClassifier(
        Perceiver(Image((4, 6, 1), num_bands=2), **SMALL),
        3,
        decoder=PerceiverDecoder(LearnedQueries(1, 8)),
    )
    explorer = Explorer(model)
    first, second = _image(rng), _image(rng)
    second[2:] = first[2:]
    hidden = {"image": np.arange(24) < 12}
    answers = [explorer.answer({"image": x}, hidden) for x in (first, second)]
    logits = [answer.outputs["logits"] for answer in answers]
    np.testing.assert_allclose(*logits, atol=1e-6)
    assert answers[0].maps.num_inputs.tolist() == [12]
    weights = answers[0].attention(1, 0)["image"]
    assert (weights[:2] == 0).all()
    assert weights[2:].mean() == pytest.approx(1, abs=1e-4)
    assert not explorer.uses_inputs_in_head
    maps = attention_maps(
        model, first[None], elements_mask=~hidden["image"][None]
    ).weights(1, [0])["image"]
    np.testing.assert_allclose(maps[0].mean(axis=(0, 1)) * 12, weights, atol=1e-5)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("queries", "use_indices"),
    [(InputQueries(), False), (PositionQueries((4, 6), 2), True)],
)
def test_outputs_on_a_grid(queries, use_indices):
    encoder = Perceiver(Image((4, 6, 1), num_bands=2), **SMALL)
    decoder = PerceiverDecoder(queries)
    image = _image(np.random.default_rng(0))
    grid = {"grid": (4, 6), "use_indices": use_indices}
    model = PerceiverDensePredictor(encoder, 2, decoder, **grid)
    explorer = Explorer(model)
    assert explorer.uses_inputs_in_head == isinstance(queries, InputQueries)
    answer = explorer.answer({"image": image})
    batch = {"image": image[None], "indices": np.arange(24)[None]}
    expected = model(batch if use_indices else image[None])
    expected = ops.convert_to_numpy(expected).reshape(4, 6, 2)
    np.testing.assert_allclose(answer.grid_output, expected, atol=1e-5)
    assert answer.probabilities is None
    model = PerceiverSegmenter(encoder, 5, decoder, **grid)
    answer = Explorer(model).answer({"image": image})
    expected = model(batch if use_indices else image[None])
    expected = ops.convert_to_numpy(expected).reshape(4, 6, 5).argmax(axis=-1)
    assert answer.grid_output.tolist() == expected.tolist()


@pytest.mark.one_backend
def test_the_order_of_points_does_not_matter():
    encoder = Perceiver(PointCloud(num_bands=2, use_mask=True), **SMALL)
    explorer = Explorer(PerceiverClassifier(encoder, 3))
    points = np.random.default_rng(0).uniform(-1, 1, (7, 3)).astype("float32")
    padded = np.zeros((7, 3), "float32")
    padded[:5] = points[2:]
    hidden = np.arange(7) < 2
    answer = explorer.answer({"points": points}, {"points": hidden})
    rest = explorer.answer({"points": padded}, {"points": np.arange(7) >= 5})
    np.testing.assert_allclose(
        answer.outputs["logits"], rest.outputs["logits"], atol=1e-5
    )
    assert rest.maps.num_inputs.tolist() == [5]


@pytest.mark.one_backend
def test_encoders_have_maps_only():
    explorer = Explorer(Perceiver(Image((4, 6, 1), num_bands=2), **SMALL))
    answer = explorer.answer(explorer.random_examples())
    assert answer.outputs == {}
    assert answer.probabilities is None
    assert answer.grid_output is None
    assert answer.attention(0)["image"].mean() == pytest.approx(1, abs=1e-4)


@pytest.mark.one_backend
def test_a_custom_head_is_found():
    encoder = Perceiver(Array((5, 2), num_bands=2), **SMALL)

    class Doubled(PerceiverClassifier):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

    model = Doubled(encoder, 3)
    array = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
    found = Explorer(model).answer({"array": array}).outputs["logits"]
    expected = ops.convert_to_numpy(model(array[None]))[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.one_backend
def test_invalid_calls():
    with pytest.raises(TypeError, match="`model` must be a `Perceiver` or a task"):
        Explorer(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    explorer = Explorer(Perceiver(_two_modalities(), **SMALL))
    with pytest.raises(ValueError, match="one of the inputs image, audio"):
        explorer.answer({})
    image = {"image": np.zeros((4, 6, 1), "float32")}
    with pytest.raises(ValueError, match=r"shape \(25,\) for 24 elements"):
        explorer.answer(image, {"image": np.ones(25, bool)})
