"""A model with several modalities, masks, missing modalities and dynamic lengths."""

import keras
import numpy as np
import pytest

from keras_perceiver import (
    Array,
    Audio,
    ByteArray,
    Image,
    LearnedPositionEncoding,
    MelSpectrogram,
    Perceiver,
    PerceiverClassifier,
    PointCloud,
    SelfAttend,
    Sequence,
    Video,
    export_for_serving,
)
from tests import contracts
from tests.gradients import gradients


def _numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x))


RATES = ("modality_dropout", "element_dropout")


def _model(modality=None, **settings):
    if modality is None:
        modality = {
            "audio": Audio(40, 8000, patch_size=5, num_bands=2, use_mask=True),
            "image": Image((4, 6, 3), num_bands=2, patch_size=2, use_mask=True),
        }
    settings = {
        "num_latents": 5,
        "latent_dim": 16,
        "num_blocks": 2,
        "num_self_attends_per_block": 1,
        "self_attend": SelfAttend(num_heads=4),
        **settings,
    }
    rates = {name: settings.pop(name) for name in RATES if name in settings}
    encoder = Perceiver(ByteArray(modality, **rates), **settings)
    return PerceiverClassifier(encoder, num_classes=4)


def _data(batch=6, num_samples=33):
    rng = np.random.default_rng(0)
    x = {
        "audio": rng.uniform(-1, 1, (batch, num_samples)).astype("float32"),
        "audio_mask": np.arange(num_samples) < rng.integers(9, 33, batch)[:, None],
        "image": rng.normal(size=(batch, 4, 6, 3)).astype("float32"),
        "image_mask": rng.random((batch, 4, 6)) > 0.4,
    }
    return x, np.arange(batch) % 4


def _randomize(model):
    rng = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0.1, 0.4, weight.shape))
    return model


def _assert_equal_logits(found, expected):
    scale = max(np.abs(expected).max(), 1)
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-5)


def _trunk_logits(model, elements, mask):
    encoder = model.encoder
    latents = encoder.latent_array(elements)
    latents = encoder.iterative_attention(latents, elements, inputs_mask=mask)
    return _numpy(model.head(keras.ops.mean(latents, axis=1)))


@pytest.mark.fast_on("torch")
def test_contract(tmp_path):
    x, labels = _data()

    def make():
        dropout = {"modality_dropout": {"image": 0.3}, "element_dropout": 0.1}
        return _model(num_blocks=1, **dropout)

    contracts.check_model(make, x, labels, tmp_path)


@pytest.mark.fast_on("torch")
def test_elements_permuted_within_and_across_modalities_change_no_logit():
    model = _randomize(_model())
    x, _ = _data()
    elements, mask = map(_numpy, model.encoder.byte_array(x))
    expected = model.predict(x, verbose=0)
    _assert_equal_logits(_trunk_logits(model, elements, mask), expected)
    order = np.random.default_rng(3).permutation(elements.shape[1])
    found = _trunk_logits(model, elements[:, order], mask[:, order])
    _assert_equal_logits(found, expected)
    # The features that identify the modality make a difference.
    vectors = model.encoder.byte_array.modality_features
    vectors["audio"].assign(vectors["audio"] + 1.0)
    assert np.abs(model.predict(x, verbose=0) - expected).max() > 1e-3


@pytest.mark.fast_on("torch")
@pytest.mark.parametrize("padding", [0.0, np.nan])
def test_masked_modality_equals_a_missing_one(padding):
    model = _randomize(_model())
    x, _ = _data()
    elements, mask = map(_numpy, model.encoder.byte_array(x))
    # Audio is first, with 7 elements.
    expected = _trunk_logits(model, elements[:, 7:], mask[:, 7:])
    x["audio"] = np.full_like(x["audio"], padding)
    x["audio_mask"] = np.zeros_like(x["audio_mask"])
    _assert_equal_logits(model.predict(x, verbose=0), expected)


def test_a_batch_may_be_shorter():
    model = _randomize(_model())
    x, _ = _data()
    expected = model.predict(x, verbose=0)
    longer = {**x, "audio": np.full((6, 40), np.nan, "float32")}
    longer["audio"][:, :33] = x["audio"]
    longer["audio_mask"] = np.pad(x["audio_mask"], [(0, 0), (0, 7)])
    _assert_equal_logits(model.predict(longer, verbose=0), expected)


def test_nan_in_padding_reaches_no_gradient():
    model = _randomize(_model(modality_dropout=0.5, element_dropout=0.2))
    x, _ = _data()
    x["audio"][~x["audio_mask"]] = np.nan
    x["image"][~x["image_mask"]] = np.nan

    def logits(audio, image):
        inputs = {**x, "audio": audio, "image": image}
        inputs = {k: keras.ops.convert_to_tensor(v) for k, v in inputs.items()}
        return model(inputs, training=True)

    weights = model.trainable_weights
    outputs, found = gradients(logits, x["audio"], x["image"], weights=weights)
    assert all(np.isfinite(array).all() for array in (outputs, *found))
    assert np.abs(found[1]).max() > 0


def test_missing_and_wrong_inputs_are_named():
    model = _model()
    x, _ = _data()
    for name, change, message in (
        ("image_mask", None, r"Add \['image_mask'\]"),
        ("audio", np.zeros((6, 41), "float32"), "up to 40 samples"),
        ("audio_mask", np.ones((6, 32), bool), r"must have shape \(6, 33\)"),
        ("image", np.zeros((6, 4, 6), "float32"), "Images must have shape"),
    ):
        bad = {k: v for k, v in x.items() if k != name}
        if change is not None:
            bad[name] = change
        with pytest.raises(ValueError, match=message):
            model.predict(bad, verbose=0)


@pytest.mark.fast_on("torch")
def test_multi_label_examples():
    import tensorflow as tf

    model = _model()
    x, _ = _data()
    targets = (np.random.default_rng(5).random((6, 4)) > 0.5).astype("float32")
    model.compile(
        keras.optimizers.Adam(1e-2),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.AUC(multi_label=True, from_logits=True, num_labels=4)],
    )
    losses = model.fit(x, targets, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    dataset = tf.data.Dataset.from_tensor_slices((x, targets)).batch(6)
    model.fit(dataset, verbose=0)


def test_point_clouds_in_one_batch_use_their_own_positions():
    model = _randomize(_model(PointCloud(num_bands=3, max_resolution=8)))
    points = np.random.default_rng(0).uniform(-1, 1, (3, 20, 3)).astype("float32")
    together = model.predict(points, verbose=0)
    for i in range(3):
        alone = model.predict(points[i : i + 1], verbose=0)
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-5, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-3
    shuffled = model.predict(points[:, ::-1].copy(), verbose=0)
    _assert_equal_logits(shuffled, together)


@pytest.mark.slow
def test_all_modalities_with_dynamic_lengths_are_exported(tmp_path):
    modality = {
        "points": PointCloud(num_bands=2, use_mask=True),
        "image": Image(
            (None, None, 3),
            patch_size=2,
            position_encoding=LearnedPositionEncoding(5, grid=(3, 2)),
        ),
        "text": Sequence(9, 7, 5, num_bands=2, use_mask=True),
        "mel": MelSpectrogram(
            400, 4000, 4, frame_length=80, frame_step=50, num_bands=2, use_mask=True
        ),
        "video": Video((2, 8, 8, 1), num_bands=2),
        "sensors": Array((None, 2), num_bands=2, max_resolution=20),
        "sound": Audio(40, 8000, patch_size=5, num_bands=2, use_mask=True),
    }
    model = _randomize(_model(modality, num_blocks=1))
    # The export compares the SavedModel with `predict`.
    folder = export_for_serving(model, tmp_path)
    rng = np.random.default_rng(0)
    x = {
        "points": rng.uniform(-1, 1, (2, 13, 3)).astype("float32"),
        "points_mask": rng.random((2, 13)) > 0.3,
        "image": rng.normal(size=(2, 6, 10, 3)).astype("float32"),
        "text": rng.integers(0, 7, (2, 4)).astype("int32"),
        "text_mask": np.ones((2, 4), bool),
        "mel": rng.uniform(-1, 1, (2, 220)).astype("float32"),
        "mel_mask": rng.random((2, 220)) > 0.5,
        "video": rng.normal(size=(2, 2, 8, 8, 1)).astype("float32"),
        "sensors": rng.normal(size=(2, 7, 2)).astype("float32"),
        "sound": rng.uniform(-1, 1, (2, 23)).astype("float32"),
        "sound_mask": np.ones((2, 23), bool),
    }
    expected = model.predict(x, verbose=0)
    assert np.isfinite(expected).all()
    # Lengths that the check of the export does not cover.
    import tensorflow as tf

    signature = tf.saved_model.load(folder).signatures["serving_default"]
    logits = signature(**{k: tf.constant(v) for k, v in x.items()})["logits"]
    np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-4, atol=1e-4)
    again = PerceiverClassifier.from_config(model.get_config())
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again.predict(x, verbose=0), expected)


@pytest.mark.fast_on("torch")
def test_predicts_from_the_remaining_modality():
    rng = np.random.default_rng(0)
    labels = np.arange(96) % 3
    pitch = (0.05, 0.15, 0.3)  # of the sample rate
    stripes = [(2, 1), (1, 2), (2, 2)]  # pixels down and across with one sign

    def image(label):
        down, across = stripes[label]
        signs = np.add.outer(np.arange(8) // down, np.arange(8) // across) % 2 * 2 - 1
        return signs[..., None] * rng.uniform(0.5, 1)

    phases = rng.uniform(0, 2 * np.pi, (96, 1))
    angles = 2 * np.pi * np.outer(np.take(pitch, labels), np.arange(40)) + phases
    x = {
        "audio": np.sin(angles).astype("float32"),
        "audio_mask": np.ones((96, 40), bool),
        "image": np.stack([image(label) for label in labels]).astype("float32"),
        "image_mask": np.ones((96, 8, 8), bool),
    }
    modality = {
        "audio": Audio(40, 8000, patch_size=20, num_bands=2, use_mask=True),
        "image": Image((8, 8, 1), num_bands=4, patch_size=4, use_mask=True),
    }
    model = _model(modality, num_blocks=1, latent_dim=32, modality_dropout=0.3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(5e-3), loss, metrics=["accuracy"])
    model.fit(x, labels, epochs=40, batch_size=32, verbose=0)
    for missing in ("audio", "image"):
        left = {**x, f"{missing}_mask": np.zeros_like(x[f"{missing}_mask"])}
        found = model.evaluate(left, labels, batch_size=96, verbose=0)[1]
        assert found > 0.6, f"without {missing}: {found}"  # majority: 0.33
