"""Features of Keras models, on classifiers, with plain Keras models as control."""

import copy
import warnings

import keras
import numpy as np
import pytest

from keras_perceiver import (
    Audio,
    Image,
    Perceiver,
    PerceiverClassifier,
    SelfAttend,
)

BACKEND = keras.backend.backend()
NUM_SAMPLES = 48
pytestmark = [
    # Keras' warning for every layer without a kernel to quantize.
    pytest.mark.filterwarnings("ignore:.*does not have a `quantize"),
    # JAX's warning for an argument that Keras passes.
    pytest.mark.filterwarnings("ignore:The `native_serialization` parameter"),
]


def _classifier(modality=None):
    encoder = Perceiver(
        modality or Image((6, 4, 3), num_bands=2),
        num_latents=5,
        latent_dim=16,
        num_blocks=1,
        num_self_attends_per_block=1,
        self_attend=SelfAttend(num_heads=2),
    )
    return PerceiverClassifier(encoder, num_classes=4)


def _plain():
    """A model of Keras' own layers with the same classes."""
    inputs = keras.Input((6, 4, 3))
    x = keras.layers.Reshape((24, 3))(inputs)
    x = keras.layers.Dense(16, activation="gelu", name="value")(x)
    x = keras.layers.Dropout(0.1)(x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, keras.layers.Dense(4)(x))


def _images(batch=6):
    return np.random.default_rng(0).normal(size=(batch, 6, 4, 3)).astype("float32")


def _sounds(batch, length):
    rng = np.random.default_rng(0)
    return {
        "audio": rng.normal(size=(batch, length)).astype("float32"),
        "audio_mask": rng.random((batch, length)) > 0.3,
    }


def _predictions(model, inputs=None):
    return model.predict(_images() if inputs is None else inputs, verbose=0)


def _quantized(model, mode="int8", filters=None):
    model.quantize(mode, filters=filters)
    return model


def _error(outputs, expected):
    return np.abs(outputs - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(
    ("mode", "filters", "largest_error"),
    [
        ("int8", "^value$", 0.03),
        pytest.param("int8", "^(key|value)$", 0.03, marks=pytest.mark.slow),
        pytest.param("int4", "^value$", 0.4, marks=pytest.mark.slow),
        pytest.param("int8", None, 0.06, marks=pytest.mark.slow),
        pytest.param("int4", None, 0.6, marks=pytest.mark.slow),
        pytest.param("float8", None, 0.3, marks=pytest.mark.slow),
    ],
)
def test_quantized_model_is_accurate_and_reloads(
    mode, filters, largest_error, tmp_path
):
    model = _classifier()
    before = _predictions(model)
    after = _predictions(_quantized(model, mode, filters))
    assert 0 < _error(after, before) < largest_error
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(_predictions(loaded), after)


@pytest.mark.parametrize(
    "filters", [None, pytest.param("^mlp", marks=pytest.mark.slow)]
)
def test_copies_keep_class_and_outputs(filters):
    model = _classifier()
    if filters is not None:
        _quantized(model, filters=filters)
    expected = _predictions(model)
    again = type(model).from_config(model.get_config())
    again.set_weights(model.get_weights())
    for other in (copy.deepcopy(model), again):
        assert type(other) is PerceiverClassifier
        np.testing.assert_array_equal(_predictions(other), expected)
    # Keras converts a model with its own constructor to a plain model.
    clone = keras.models.clone_model(model)
    assert type(clone) is keras.Model or type(clone).__name__ == "Functional"
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(_predictions(clone), expected)


@pytest.mark.one_backend
@pytest.mark.parametrize("name", ["model.h5", "model.hdf5"])
def test_hdf5_is_refused_before_anything_is_written(name, tmp_path):
    for model in (_classifier(), _classifier().encoder):
        with pytest.raises(ValueError, match=f"as `.keras` files.*Received.*{name}"):
            model.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "settings"),
    [("model.weights.h5", {}), ("model.weights.json", {"max_shard_size": 1e-5})],
)
@pytest.mark.fast_on("torch")
def test_weights_files(name, settings, tmp_path):
    model, other = (_quantized(_classifier(), filters="^value$") for _ in range(2))
    model.save_weights(tmp_path / name, **settings)
    assert len(list(tmp_path.iterdir())) > 2 or not settings  # files of 10 kB
    other.load_weights(tmp_path / name)
    for weight, expected in zip(other.weights, model.weights, strict=True):
        np.testing.assert_array_equal(
            *map(keras.ops.convert_to_numpy, (weight, expected))
        )


def _trained_under_remat(make):
    """Returns the loss, or Keras' error for a layer with `training`."""
    with keras.RematScope(mode="full"):
        model = make()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    try:
        history = model.fit(_images(), np.arange(6) % 4, verbose=0)
    except Exception as error:
        return type(error)
    return np.isfinite(history.history["loss"]).all()


def test_remat_scope_works_wherever_it_does_for_plain_models():
    ours, plain = map(_trained_under_remat, (_classifier, _plain))
    fails = [isinstance(result, type) for result in (ours, plain)]
    assert fails[0] <= fails[1], (ours, plain)
    assert fails[0] or ours
    assert BACKEND != "torch" or not fails[0]


@pytest.mark.fast_on("tensorflow", "torch")
def test_no_examples_and_nested_lists():
    model = _classifier()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tuple(model(_images(0)).shape) == (0, 4)
        audio = Audio(NUM_SAMPLES, 8, patch_size=2, num_bands=4, use_mask=True)
        assert tuple(_classifier(audio)(_sounds(0, 20)).shape) == (0, 4)
    nested, arrays = (
        keras.ops.convert_to_numpy(model(x)) for x in (_images().tolist(), _images())
    )
    np.testing.assert_allclose(nested, arrays, rtol=1e-5, atol=1e-5)


# Keras' SavedModel of a torch model has a fixed batch size, if it can be written.
if BACKEND != "torch":

    @pytest.mark.slow
    @pytest.mark.parametrize("is_quantized", [False, True])
    def test_saved_model(is_quantized, tmp_path):
        import tensorflow as tf

        model = _classifier()
        if is_quantized:
            _quantized(model)
        model.export(tmp_path / "model", verbose=False)
        served = tf.saved_model.load(tmp_path / "model")
        for batch in (1, 6):
            logits = np.asarray(served.serve(_images(batch)))
            expected = _predictions(model, _images(batch))
            np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.slow
    def test_saved_model_has_dynamic_lengths(tmp_path):
        import tensorflow as tf

        audio = Audio(NUM_SAMPLES, 8, patch_size=2, num_bands=4, use_mask=True)
        model = _classifier(audio)
        model.export(tmp_path / "model", verbose=False)
        served = tf.saved_model.load(tmp_path / "model")
        for batch, length in ((2, NUM_SAMPLES), (3, 21), (1, 1)):
            x = _sounds(batch, length)
            logits = np.asarray(served.serve({k: tf.constant(v) for k, v in x.items()}))
            np.testing.assert_allclose(
                logits, _predictions(model, x), rtol=1e-5, atol=1e-5
            )
