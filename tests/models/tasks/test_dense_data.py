"""The data of dense tasks: targets, weights and indices that do not fit are refused."""

import re

import keras
import numpy as np
import pytest

from keras_perceiver import (
    Array,
    Image,
    InputQueries,
    LearnedQueries,
    ModalityQueries,
    Perceiver,
    PerceiverDecoder,
    PerceiverDensePredictor,
    PerceiverSegmenter,
    PositionQueries,
    attention_maps,
)
from tests.models import small

GRID = (3, 2)


def _decoder():
    return PerceiverDecoder(PositionQueries(GRID, num_bands=1))


def _compiled(cls=PerceiverDensePredictor, size=1, **settings):
    model = cls(small.encoder(), size, _decoder(), **settings)
    model.compile()
    return model


def _evaluate(model, *data, **settings):
    return model.evaluate(*data, verbose=0, return_dict=True, **settings)


@pytest.mark.fast_on("torch")
def test_targets_of_another_shape_are_refused():
    images = small.images()
    values, classes = _compiled(), _compiled(PerceiverSegmenter, 2)
    for model, shape, fix in (
        (values, (3, 2, 3), "create the model for their shape"),
        (values, (2, 3, 1), "Reshape them"),
        (values, (), "Reshape them"),
        (values, (6, 1), "Reshape them"),
        (values, (3, 2), r"Add the axis of the channel: `targets\[..., None\]`"),
        (classes, (3, 2, 2), "Reshape them"),
        (classes, (2, 2), "Reshape them"),
    ):
        received = re.escape(f"Received: targets of shape {(6, *shape)}")
        message = f"Targets must be those of the whole grid.*{received}.*{fix}"
        for method in (model.fit, model.evaluate):
            with pytest.raises(ValueError, match=message):
                method(images, np.zeros((6, *shape)), verbose=0)
    for targets in ({"a": np.zeros((6, 3, 2, 1))}, dict.fromkeys("ab", np.zeros(6))):
        for model in (values, classes, small.classifier()):
            model.compile()
            with pytest.raises(
                ValueError, match="one array.*a dict with the keys .'a'"
            ):
                model.evaluate(images, targets, verbose=0)
    # An axis of length 1 after those of the grid, as of files of masks.
    labels = (images[..., :1] > 0).astype(int)
    expected = _evaluate(classes, images, labels[..., 0])
    assert _evaluate(classes, images, labels) == pytest.approx(expected)


@pytest.mark.fast_on("torch")
def test_own_loss_compares_any_targets():
    model = _compiled()
    model.compile(loss=lambda y, y_pred: (y - y_pred[:, 0, 0, 0]) ** 2, metrics=[])
    assert _evaluate(model, small.images(), np.zeros(6))["loss"] > 0


@pytest.mark.fast_on("torch")
@pytest.mark.parametrize("use_indices", [False, True])
def test_weights_are_those_of_examples_or_points(use_indices):
    images = small.images()
    targets = np.random.default_rng(1).normal(size=(6, *GRID, 1)).astype("float32")
    model = _compiled(use_indices=use_indices)
    inputs, wanted = images, targets
    if use_indices:
        indices = np.arange(12).reshape(6, 2) % 6
        inputs = {"image": images, "indices": indices}
        wanted = np.take_along_axis(targets.reshape(6, 6, 1), indices[..., None], 1)
    errors = (model.predict(inputs, verbose=0) - wanted) ** 2
    weights = np.arange(6, dtype="float32")
    expected = (weights * errors.reshape(6, -1).mean(axis=1)).mean()
    points = np.broadcast_to(weights[:, None, None], (6, *GRID))
    for given in (weights, weights[:, None], points, points[..., None]):
        found = _evaluate(model, inputs, targets, sample_weight=np.array(given))
        assert found["loss"] == pytest.approx(expected, rel=1e-4)
    model.compile(keras.optimizers.SGD(0.0))
    for given in (weights, points):
        found = model.fit(inputs, targets, sample_weight=np.array(given), verbose=0)
        assert found.history["loss"] == [pytest.approx(expected, rel=1e-4)]
    for wrong in ((6, 2), (6, 2, 2), (6, 6)):
        with pytest.raises(ValueError, match="Sample weights must be one per example"):
            model.fit(inputs, targets, sample_weight=np.ones(wrong), verbose=0)


@pytest.mark.fast_on("torch")
def test_indices_that_do_not_fit_are_refused():
    images, model = small.images(), _compiled(use_indices=True)
    indices = np.zeros((6, 2), int)
    for wrong, received in (
        (indices.astype("float32"), "dtype float32"),
        (np.full((6, 2), np.nan, "float32"), "dtype float32"),
        (indices.astype(bool), "dtype bool"),
        (indices[:, :0], r"shape \(6, 0\)"),
        (indices[:, 0], r"shape \(6,\)"),
    ):
        inputs = {"image": images, "indices": wrong}
        with pytest.raises(ValueError, match=f"`indices` must be integers.*{received}"):
            model.predict(inputs, verbose=0)
        with pytest.raises(ValueError, match=f"`indices` must be integers.*{received}"):
            model(inputs)
    with pytest.raises(ValueError, match="same number of examples.*'indices': 1"):
        model.predict({"image": images, "indices": indices[:1]}, verbose=0)
    inputs = {"image": images, "indices": indices}
    with pytest.raises(ValueError, match="whole grid.*Pass those of all points"):
        model.evaluate(inputs, np.zeros((6, 2, 1)), verbose=0)
    with pytest.raises(ValueError, match="Only a model with `use_indices=True`"):
        _compiled().predict(inputs, verbose=0)


def test_decoder_and_maps_refuse_numbers_that_are_no_outputs():
    decoder = _decoder()
    for wrong in ([0, 5], [[0.5]], [[True]]):
        with pytest.raises(ValueError, match="`indices` must be integers of shape"):
            decoder(np.zeros((2, 2, 4), "float32"), indices=wrong)
    maps = attention_maps(_compiled(), small.images())
    assert maps.output_weights([0, 5]).shape == (6, 1, 2, 2)
    for wrong in (6, -1, 0.9, True):
        with pytest.raises(IndexError, match=r"`outputs` must be integers in 0..5"):
            maps.output_weights([wrong])


def test_constructors_refuse_one_class_and_grids_of_no_tuple():
    with pytest.raises(ValueError, match="`num_classes` must be at least 2"):
        PerceiverSegmenter(small.encoder(), 1, _decoder())
    with pytest.raises(TypeError, match="`grid` must be a tuple.*`.8,.`"):
        PositionQueries(8)
    with pytest.raises(TypeError, match="`grid` must be a tuple"):
        PerceiverDensePredictor(small.encoder(), 1, _decoder(), grid=6)


@pytest.mark.fast_on("torch")
def test_queries_of_inputs_beside_others():
    queries = {"image": InputQueries(), "label": LearnedQueries(1, 4)}
    decoder = PerceiverDecoder(ModalityQueries(queries))
    model = PerceiverDensePredictor(small.encoder(), 1, decoder)
    assert model.grid == (7,)
    assert model.predict(small.images(), verbose=0).shape == (6, 7, 1)


@pytest.mark.fast_on("torch")
def test_one_hot_targets_have_the_scores_of_classes():
    model = _compiled(PerceiverSegmenter, 3)
    labels = np.arange(36).reshape(6, *GRID) % 3
    weights = np.random.default_rng(1).random(labels.shape).astype("float32")
    expected = _evaluate(model, small.images(), labels, sample_weight=weights)
    model.compile(loss=keras.losses.CategoricalCrossentropy(from_logits=True))
    one_hot = np.eye(3)[labels]
    found = _evaluate(model, small.images(), one_hot, sample_weight=weights)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.fast_on("torch")
def test_inputs_of_several_modalities_are_queries():
    modalities = {
        "image": Image((3, 2, 1), num_bands=1),
        "sound": Array((4, 1), num_bands=1),
    }
    encoder = Perceiver(modalities, **small.SMALL)
    model = PerceiverDensePredictor(encoder, 2, PerceiverDecoder(InputQueries()))
    assert model.output_shape == (None, 10, 2)
