"""Outputs for every point of a grid: losses, parts of the outputs, reports, files."""

import contextlib

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

from keras_perceiver import (
    Config,
    CrossAttend,
    Distribution,
    Image,
    ImagePreprocessor,
    InputQueries,
    LearnedQueries,
    Perceiver,
    PerceiverClassifier,
    PerceiverDecoder,
    PerceiverDensePredictor,
    PerceiverHyperModel,
    PerceiverSegmenter,
    PositionQueries,
    SelfAttend,
    export_for_serving,
    flops,
)
from keras_perceiver.models import R2
from tests import contracts

GRID = (6, 5)


def _encoder(**settings):
    return Perceiver(
        Image((6, 5, 3), num_bands=2, **settings),
        num_latents=8,
        latent_dim=16,
        num_blocks=1,
        num_self_attends_per_block=1,
        self_attend=SelfAttend(num_heads=2),
    )


def _decoder(**settings):
    return PerceiverDecoder(PositionQueries(GRID, num_bands=2), **settings)


def _values(**settings):
    return PerceiverDensePredictor(_encoder(), 2, _decoder(), **settings)


def _classes(**settings):
    return PerceiverSegmenter(_encoder(), 3, _decoder(), **settings)


def _data(num=8):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(num, 6, 5, 3)).astype("float32")
    return images, rng.normal(size=(num, *GRID, 2)).astype("float32")


@pytest.mark.fast_on("torch")
def test_contract(tmp_path):
    images, _ = _data()

    def make():
        decoder = _decoder(cross_attend=CrossAttend(dropout=0.1), chunk_size=7)
        return PerceiverSegmenter(_encoder(), 3, decoder)

    labels = (images[..., 0] > 0).astype("int32")
    contracts.check_model(make, images, labels, tmp_path)


@pytest.mark.fast_on("torch")
def test_learns_what_is_in_the_pixels():
    images, _ = _data(64)
    targets = images[..., :1] * 2 + 1
    model = PerceiverDensePredictor(_encoder(), 1, PerceiverDecoder(InputQueries()))
    model.compile(keras.optimizers.Adam(1e-2))
    history = model.fit(images, targets, batch_size=16, epochs=15, verbose=0).history
    assert history["r2"][-1] > 0.8 > history["r2"][0]
    assert model.grid == GRID


@pytest.mark.fast_on("torch")
@pytest.mark.parametrize(
    "make", [pytest.param(_values, marks=pytest.mark.slow), _classes]
)
def test_saved_model_is_whole(make, tmp_path):
    images, values = _data()
    model = make()
    targets = values if make is _values else (values[..., 0] > 0).astype(int)
    model.decoder.cross_attend.key.trainable = False
    model.compile()
    model.fit(images, targets, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    expected = model.predict(images, verbose=0)
    np.testing.assert_array_equal(again.predict(images, verbose=0), expected)
    assert not again.decoder.cross_attend.key.trainable
    assert again.grid == GRID
    assert expected.shape == (8, *GRID, expected.shape[-1])
    again.fit(images, targets, verbose=0)


@pytest.mark.fast_on("torch")
@pytest.mark.parametrize("make", [_values, _classes])
def test_preset_is_whole(make, tmp_path):
    model = make(preprocessor=ImagePreprocessor((6, 5, 3)))
    model.save_to_preset(tmp_path / "dense")
    cls, (images, _) = type(model), _data()
    again = cls.from_preset(tmp_path / "dense")
    assert again.get_config() == model.get_config()
    expected = model.predict(images, verbose=0)
    np.testing.assert_array_equal(again.predict(images, verbose=0), expected)
    untrained = cls.from_preset(tmp_path / "dense", load_weights=False, num_latents=3)
    assert untrained.encoder.output_shape == (None, 3, 16)
    encoder = Perceiver.from_preset(tmp_path / "dense")
    for weight, other in zip(encoder.weights, model.encoder.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), other.numpy())
    for other in {PerceiverClassifier, PerceiverSegmenter, PerceiverDensePredictor}:
        if other is not cls:
            with pytest.raises(ValueError, match=f"{other.__name__}.*{cls.__name__}"):
                other.from_preset(tmp_path / "dense")
    with pytest.raises(ValueError, match="'digits', a preset of classifiers"):
        cls.from_preset("digits")
    with pytest.raises(ValueError, match="Did you mean 'digits'"):
        cls.from_preset("digit")


@pytest.mark.fast_on("torch")
def test_segmenter_gets_a_new_head(tmp_path):
    model = _classes(ignore_class=9, class_names=["a", "b", "c"])
    model.save_to_preset(tmp_path / "classes")
    other = PerceiverSegmenter.from_preset(tmp_path / "classes", num_classes=5)
    assert other.output_shape == (None, *GRID, 5)
    assert (other.ignore_class, other.class_names) == (9, None)
    ours, theirs = other.decoder, model.decoder
    for part in ("queries", "cross_attend"):
        weights = zip(
            getattr(ours, part).weights, getattr(theirs, part).weights, strict=True
        )
        for weight, expected in weights:
            np.testing.assert_array_equal(weight.numpy(), expected.numpy())


def test_weights_of_classes_are_refused():
    model = _classes()
    model.compile()
    labels = np.zeros((8, *GRID), int)
    with pytest.raises(
        ValueError, match=r"one per point.*np\.array\(weights\)\[labels\]"
    ):
        model.fit(_data()[0], labels, class_weight={0: 2.0}, verbose=0)


@pytest.mark.fast_on("torch")
def test_accuracy_leaves_the_ignored_class_out():
    model = _classes(ignore_class=9)
    model.compile(metrics=["accuracy"])
    images, _ = _data()
    labels = model.predict(images, verbose=0).argmax(axis=-1)
    labels[:, 0] = 9
    found = model.evaluate(images, labels, verbose=0, return_dict=True)
    assert found["accuracy"] == 1


@pytest.mark.parametrize("mode", ["int8", pytest.param("int4", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:.*does not have a `quantize")
def test_quantized_model_is_saved(mode, tmp_path):
    images, _ = _data()
    model = _classes()
    model.decoder.queries.trainable = False
    expected = model.predict(images, verbose=0)
    model.quantize(mode)
    found = model.predict(images, verbose=0)
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert 0 < error < {"int8": 0.05, "int4": 0.5}[mode]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(images, verbose=0), found)
    assert again.decoder.head.quantization_mode == mode
    assert not again.decoder.queries.trainable


@pytest.mark.fast_on("tensorflow")
@pytest.mark.parametrize(
    "use_indices", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_is_served(use_indices, tmp_path):
    # The export compares the SavedModel with `predict`.
    model = _classes(use_indices=use_indices)
    path = export_for_serving(model, tmp_path / "segmenter", preprocessor={})
    assert (path.parent / "batching.config").exists() != use_indices
    signature = tf.saved_model.load(path).signatures["serving_default"]
    images, _ = _data(2)
    inputs = {"image": tf.constant(images)}
    if not use_indices:
        answers = signature(**inputs)
        assert answers["classes"].shape == (2, *GRID)
        return
    indices = np.array([[0, 29, 7], [1, 2, 3]], "int32")
    answers = signature(**inputs, indices=tf.constant(indices))
    logits = model.predict({"image": images, "indices": indices}, verbose=0)
    expected = model.serving_outputs(logits)["probabilities"]
    np.testing.assert_allclose(
        answers["probabilities"], keras.ops.convert_to_numpy(expected), atol=1e-5
    )
    for wrong, message in (
        (
            [[0, 30], [1, 1]],
            r"`indices` must be in \[0, 30\). Received: indices from 0 to 30",
        ),
        ([[-1], [1]], "Received: indices from -1 to 1"),
        ([0, 1], r"must have shape \(batch, num_outputs\). Received: shape \[2\]"),
        ([[0, 1]], "must have the same number of examples. Received: .2 1."),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            signature(**inputs, indices=tf.constant(wrong))


@pytest.mark.one_backend
@pytest.mark.fast_on("torch")
def test_is_tuned(tmp_path):
    images, values = _data(16)
    labels = (values[..., 0] > 0).astype("int32")
    hyper_model = PerceiverHyperModel(
        Image((6, 5, 3), num_bands=2),
        Config(PerceiverSegmenter, num_classes=3, decoder=_decoder()),
        {
            "num_latents": 4,
            "latent_dim": [8, 16],
            "num_blocks": 1,
            "num_self_attends_per_block": 1,
            "self_attend.num_heads": 2,
            "batch_size": 8,
        },
    )
    assert "label_smoothing" not in hyper_model.space
    tuner = keras_tuner.GridSearch(
        hyper_model, hyper_model.objective, max_trials=1, directory=tmp_path
    )
    tuner.search(images, labels, validation_data=(images, labels), epochs=1, verbose=0)
    (trial,) = tuner.oracle.trials.values()
    assert 0 < trial.score < 1
    with pytest.raises(
        ValueError, match="`label_smoothing` is for tasks whose default"
    ):
        PerceiverHyperModel(
            Image((6, 5, 3), num_bands=2), hyper_model.task, {"label_smoothing": 0.1}
        )


def _two_devices():
    if keras.backend.backend() == "jax":
        return Distribution("data_parallel", 2).scope()
    # Collective operations have keys that exist once in a process.
    return tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    ).scope()


# Keras has no distribution on torch.
if keras.backend.backend() != "torch":

    @pytest.mark.slow
    def test_trains_on_two_devices():
        images, values = _data()
        indices = np.arange(8 * 4, dtype="int32").reshape(8, 4) % 30
        losses = []
        for scope in (contextlib.nullcontext(), _two_devices()):
            with scope:
                keras.utils.set_random_seed(0)
                model = _values(use_indices=True)
                model.compile("sgd")
                inputs = {"image": images, "indices": indices}
                options = {"batch_size": 8, "epochs": 2, "verbose": 0}
                losses.append(model.fit(inputs, values, **options).history["loss"])
        assert losses[0][1] < losses[0][0]
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


@pytest.mark.fast_on("torch")
@pytest.mark.parametrize("make", [_values, _classes])
def test_some_outputs_equal_those_of_all(make):
    images, values = _data()
    whole, part = make(), make(use_indices=True)
    part.set_weights(whole.get_weights())
    indices = np.random.default_rng(1).integers(0, 30, (8, 7)).astype("int32")
    inputs = {"image": images, "indices": indices}
    expected = whole.predict(images, verbose=0).reshape(8, 30, -1)
    expected = np.take_along_axis(expected, indices[:, :, None], axis=1)
    outputs = part.predict(inputs, verbose=0)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
    # Targets are those of the whole grid: the loss is that of the wanted ones.
    targets = values if make is _values else (values[..., 0] > 0).astype("int32")
    part.compile(loss="auto")
    found = part.evaluate(inputs, targets, verbose=0, return_dict=True)
    rest = targets.shape[3:]
    wanted = np.take_along_axis(
        targets.reshape(8, 30, -1), indices[:, :, None], axis=1
    ).reshape(8, 7, *rest)
    loss = part.default_loss()(wanted, outputs)
    assert found["loss"] == pytest.approx(float(loss), rel=1e-5)
    weights = np.zeros((8, *GRID), "float32")
    weights.reshape(8, 30)[np.arange(8), indices[:, 0]] = 1
    weighted = part.evaluate(inputs, targets, sample_weight=weights, verbose=0)
    assert weighted[0] != pytest.approx(found["loss"])
    part.fit(inputs, targets, verbose=0)


def test_ignored_labels_and_those_outside_the_classes():
    images, values = _data()
    labels = (values[..., 0] > 0).astype("int32")
    model = _classes(ignore_class=255)
    model.compile()
    labels[:, 0] = 255
    expected = model.evaluate(images, labels, verbose=0, return_dict=True)
    logits = model.predict(images, verbose=0)[:, 1:]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert expected["loss"] == pytest.approx(
        float(loss(labels[:, 1:], logits)), rel=1e-5
    )
    report = model.report(labels, model.predict(images, verbose=0))
    assert report.metrics()["mean_iou"] == pytest.approx(expected["mean_iou"], rel=1e-5)
    assert len(report.targets) == 8 * 25
    labels[0, 3, 3] = 3
    with pytest.raises(ValueError, match=r"Labels must be in \[0, 3\).*or 255"):
        model.fit(images, labels, verbose=0)


def test_report_of_values():
    images, values = _data()
    model = _values()
    model.compile()
    found = model.evaluate(images, values, verbose=0, return_dict=True)
    report = model.report(values, model.predict(images, verbose=0))
    metrics = report.metrics()
    assert metrics["r2"] == pytest.approx(found["r2"], rel=1e-4)
    assert metrics["mean_squared_error"] == pytest.approx(found["loss"], rel=1e-5)
    assert [row["channel"] for row in report.rows()] == [0, 1]
    metric = R2()
    metric.update_state(values, values * 1.0, np.arange(8.0))
    assert float(metric.result()) == pytest.approx(1.0)
    metric.reset_state()
    means = np.broadcast_to(values.mean((0, 1, 2)), values.shape)
    metric.update_state(values, means)
    assert float(metric.result()) == pytest.approx(0.0, abs=1e-5)


def test_targets_that_are_no_numbers_are_refused():
    images, values = _data()
    values[0, 0, 0, 0] = np.nan
    model = _values()
    model.compile()
    with pytest.raises(ValueError, match="Targets must be finite.*1 that are not"):
        model.fit(images, values, verbose=0)


def test_serving_outputs():
    images, _ = _data(2)
    outputs = _classes().serving_outputs(_classes().predict(images, verbose=0))
    shapes = {name: tuple(x.shape) for name, x in outputs.items()}
    assert shapes == {"probabilities": (2, *GRID, 3), "classes": (2, *GRID)}
    assert _values().serving_outputs(images) == {"outputs": images}


def test_flops_are_those_of_the_products():
    model = _values()
    encoder = flops(model.encoder)
    # Per query of width 10: query, output and two of the MLP, scores and weights with 8
    # latents of width 16, two channels.
    width, latents = 10, 8
    expected = 30 * width * (16 + 16 + 2 * width) + latents * 16 * 32
    expected += 30 * latents * 32 + 30 * width * 2
    assert flops(model) - encoder == 2 * expected


def test_bad_arguments_name_the_fix():
    with pytest.raises(TypeError, match="`decoder` must be a `PerceiverDecoder`"):
        PerceiverDensePredictor(_encoder(), 1, LearnedQueries(3, 4))
    with pytest.raises(ValueError, match="as many points as the decoder has queries"):
        PerceiverDensePredictor(_encoder(), 1, _decoder(), grid=(4, 4))
    images, _ = _data()
    model = _values(use_indices=True)
    indices = np.full((8, 2), 30, "int32")
    with pytest.raises(ValueError, match=r"`indices` must be in \[0, 30\)"):
        model.predict({"image": images, "indices": indices}, verbose=0)
    with pytest.raises(ValueError, match="must have `indices`"):
        model({"image": images})
