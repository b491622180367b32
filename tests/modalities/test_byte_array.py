import keras
import numpy as np
import pytest

from keras_perceiver import Audio, ByteArray, Image, LearnedPositionEncoding
from keras_perceiver.layers.seeds import draw_seed
from tests import contracts


def _numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x))


def _modalities(use_mask=False):
    # 24 elements of width 3 + 10, and 8 elements of width 5 + 7.
    return {
        "image": Image((4, 6, 3), num_bands=2, use_mask=use_mask),
        "audio": Audio(
            40,
            8000,
            patch_size=5,
            position_encoding=LearnedPositionEncoding(7),
            use_mask=use_mask,
        ),
    }


def _inputs(batch=2):
    rng = np.random.default_rng(0)
    return {
        "image": rng.normal(size=(batch, 4, 6, 3)).astype("float32"),
        "audio": rng.uniform(-1, 1, (batch, 40)).astype("float32"),
    }


def _masks(batch=2):
    return {
        "image_mask": np.ones((batch, 4, 6), bool),
        "audio_mask": np.ones((batch, 40), bool),
    }


def test_contract():
    def config():
        return {
            "modality": _modalities(),
            "modality_dim": 3,
            "modality_dropout": {"audio": 0.3},
            "element_dropout": 0.2,
        }

    contracts.check_layer(ByteArray, config, _inputs())


def test_contract_with_masks():
    def config():
        return {"modality": _modalities(use_mask=True), "modality_dim": 3}

    inputs = {**_inputs(), **_masks()}
    inputs["audio"] = inputs["audio"][:, :33]
    inputs["audio_mask"] = inputs["audio_mask"][:, :33]
    contracts.check_layer(ByteArray, config, inputs)


def test_every_modality_is_padded_with_its_own_vector():
    layer, inputs = ByteArray(_modalities()), _inputs()
    elements = _numpy(layer(inputs))
    assert elements.shape == (2, 24 + 8, 13 + 4)
    for name, rows in (("image", slice(0, 24)), ("audio", slice(24, 32))):
        own = _numpy(layer.modalities[name](inputs[name]))
        width = own.shape[-1]
        np.testing.assert_array_equal(elements[:, rows, :width], own)
        vector = layer.modality_features[name].numpy()
        assert vector.shape == (17 - width,)
        assert (vector != 0).all()
        rest = elements[:, rows, width:]
        np.testing.assert_array_equal(rest, np.broadcast_to(vector, rest.shape))


def test_single_modality_is_left_as_it_is():
    image, images = _modalities()["image"], _inputs()["image"]
    layer = ByteArray(image)
    np.testing.assert_array_equal(_numpy(layer(images)), _numpy(image(images)))
    assert not layer.weights


def test_masks_of_elements_in_the_order_of_the_modalities():
    masks = _masks()
    masks["image_mask"][0, 1, 2] = masks["audio_mask"][1, 5:15] = False
    layer = ByteArray(_modalities(use_mask=True))
    _, mask = layer({**_inputs(), **masks})
    expected = np.ones((2, 32), bool)
    expected[0, 6 + 2] = expected[1, 24 + 1 : 24 + 3] = False
    np.testing.assert_array_equal(_numpy(mask), expected)
    # One mask is enough, since the other modality has all elements.
    _, mask = layer({**_inputs(), "audio_mask": masks["audio_mask"]})
    expected[0] = True
    np.testing.assert_array_equal(_numpy(mask), expected)


def _present(mask):
    """Returns which of the modalities image and audio an example has, `(B, 2)`."""
    mask = _numpy(mask)
    parts = mask[:, :24], mask[:, 24:]
    for part in parts:  # a modality is masked as a whole
        np.testing.assert_array_equal(part.any(1), part.all(1))
    return np.stack([part.any(1) for part in parts], axis=1)


def test_modality_dropout_hides_at_its_rate_and_never_the_last():
    layer = ByteArray(_modalities(), modality_dropout={"image": 0.3})
    inputs = _inputs(2000)
    present = _present(layer(inputs, training=True)[1])
    assert present[:, 1].all()
    assert 0.66 < present[:, 0].mean() < 0.74
    assert _numpy(layer(inputs, training=False)[1]).all()
    assert _numpy(layer(inputs)[1]).all()

    both = ByteArray(_modalities(), modality_dropout=0.9)
    present = _present(both(inputs, training=True)[1])
    assert present.any(axis=1).all()
    # For 0.9 x 0.9 of the examples, none is drawn, so that both are kept.
    assert 0.79 < present.all(axis=1).mean() < 0.85


def test_modality_dropout_ignores_missing_modalities():
    masks = _masks(500)
    masks["audio_mask"][:250] = False
    layer = ByteArray(_modalities(use_mask=True), modality_dropout={"image": 0.5})
    present = _present(layer({**_inputs(500), **masks}, training=True)[1])
    assert present[:250, 0].all()  # the only one
    assert not present[:250, 1].any()
    assert 0.4 < present[250:, 0].mean() < 0.6


def test_element_dropout_hides_elements_at_their_rate():
    layer = ByteArray(_modalities(), element_dropout={"image": 0.25})
    mask = _numpy(layer(_inputs(200), training=True)[1])
    assert mask[:, 24:].all()
    assert 0.73 < mask[:, :24].mean() < 0.77
    again = _numpy(layer(_inputs(200), training=True)[1])
    assert (again != mask).any()
    single = ByteArray(_modalities()["image"], element_dropout=0.5)
    mask = _numpy(single(_inputs(200)["image"], training=True)[1])
    assert 0.45 < mask.mean() < 0.55


if keras.backend.backend() == "tensorflow":

    def test_replicas_draw_different_seeds():
        import tensorflow as tf

        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        with strategy.scope():
            generator = keras.random.SeedGenerator(3)
        run = tf.function(lambda: strategy.run(lambda: draw_seed(generator)))
        drawn = [x.numpy() for _ in range(2) for x in strategy.unwrap(run())]
        assert len(np.unique(drawn, axis=0)) == 4

    def test_replicas_hide_different_elements():
        import tensorflow as tf

        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        with strategy.scope():
            layer = ByteArray(_modalities(), element_dropout=0.5)
            layer(_inputs())
        run = tf.function(
            lambda: strategy.run(lambda: layer(_inputs(), training=True)[1])
        )
        first, second = (x.numpy() for x in strategy.unwrap(run()))
        assert (first != second).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ByteArray({}), "`modality` must have names"),
        (
            lambda: ByteArray({"a_mask": Image((4, 6, 3))}),
            "do not end with '_mask'.*Rename",
        ),
        (lambda: ByteArray(_modalities(), modality_dim=0), "`modality_dim` must be"),
        (
            lambda: ByteArray(_modalities(), modality_dropout=1.0),
            r"`modality_dropout` must be a number in \[0, 1\)",
        ),
        (
            lambda: ByteArray(_modalities(), element_dropout={"image": -1}),
            "`element_dropout` must be a number",
        ),
        (
            lambda: ByteArray(_modalities(), element_dropout={"video": 0.1}),
            r"must be modalities. Received: \['video'\].*\['image', 'audio'\]",
        ),
        (
            lambda: ByteArray(Image((4, 6, 3)), modality_dropout=0.1),
            "needs several modalities",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
