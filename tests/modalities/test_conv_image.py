"""The convolutional stem: elements, statistics, freezing, saving."""

import keras
import numpy as np
import pytest

from keras_perceiver import ConvImage, Perceiver, PerceiverClassifier
from tests import contracts


def _images(size=24):
    return np.random.default_rng(0).normal(size=(4, size, size, 3)).astype("float32")


def _model():
    encoder = Perceiver(
        ConvImage((24, 24, 3), filters=8, num_bands=2),
        num_latents=4,
        latent_dim=16,
        num_blocks=1,
        num_self_attends_per_block=1,
    )
    return PerceiverClassifier(encoder, 3)


@pytest.mark.parametrize("use_same_padding", [True, False])
def test_contract(use_same_padding):
    config = {
        "shape": (24, 24, 3),
        "filters": 8,
        "use_same_padding": use_same_padding,
        "num_bands": 2,
        "max_resolution": 9,
        "projection_dim": 5,
    }
    contracts.check_layer(ConvImage, config, _images())


@pytest.mark.fast_on("torch")
def test_grids():
    assert ConvImage((224, 224, 3)).grid == (56, 56)
    assert ConvImage((224, 224, 3), use_same_padding=False).grid == (55, 55)
    for size in range(4, 40):
        for use_same_padding in (True, False):
            if size < 5 and not use_same_padding:
                continue
            layer = ConvImage(
                (size, size, 1),
                filters=2,
                use_same_padding=use_same_padding,
                num_bands=1,
                max_resolution=4,
            )
            outputs = layer(np.zeros((1, size, size, 1), "float32"))
            assert outputs.shape[1] == layer.num_inputs


@pytest.mark.fast_on("torch")
def test_statistics_move_in_training_only():
    model = _model()
    model.compile("sgd", metrics=None)
    norm = model.encoder.modality.batch_norm
    before = norm.moving_mean.numpy().copy()
    model.predict(_images(), verbose=0)
    model.evaluate(_images(), np.arange(4) % 3, verbose=0)
    np.testing.assert_array_equal(norm.moving_mean.numpy(), before)
    model.fit(_images(), np.arange(4) % 3, verbose=0)
    assert (norm.moving_mean.numpy() != before).any()
    # A frozen layer uses its averages and keeps them.
    norm.trainable = False
    model.compile("sgd", metrics=None)
    before = norm.moving_mean.numpy().copy()
    model.fit(_images(), np.arange(4) % 3, verbose=0)
    np.testing.assert_array_equal(norm.moving_mean.numpy(), before)


def test_saved_model_has_statistics_and_settings(tmp_path):
    model = _model()
    norm = model.encoder.modality.batch_norm
    norm.moving_mean.assign(np.arange(8.0))
    model.encoder.modality.convolution.trainable = False
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert not again.encoder.modality.convolution.trainable
    expected = model.predict(_images(), verbose=0)
    np.testing.assert_array_equal(again.predict(_images(), verbose=0), expected)


def test_bad_arguments_name_the_fix():
    with pytest.raises(ValueError, match="use_mask=True"):
        ConvImage((24, 24, 3), use_mask=True)
    with pytest.raises(ValueError, match="larger than the windows"):
        ConvImage((4, 4, 3), use_same_padding=False)
    with pytest.raises(ValueError, match=r"must be \(height, width, channels\)"):
        ConvImage((4, 4))
