import keras
import numpy as np
import pytest

from keras_perceiver import FourierPositionEncoding, Image, LearnedPositionEncoding
from tests import contracts, reference


def _numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x))


def _images(height, width, channels, batch=2):
    rng = np.random.default_rng(0)
    return rng.normal(size=(batch, height, width, channels)).astype("float32")


def test_contract():
    config = {
        "shape": (6, 8, 3),
        "num_bands": 2,
        "max_resolution": (5, 9),
        "patch_size": 2,
        "use_mask": True,
    }
    contracts.check_layer(Image, config, _images(6, 8, 3))


def test_contract_with_learned_positions():
    config = {"shape": (6, 8, 3), "position_encoding": LearnedPositionEncoding(5)}
    # The encoding comes from outside and keeps the policy it was made with.
    layer = Image(**config)
    assert _numpy(layer(_images(6, 8, 3))).shape == (2, 48, 8)
    again = Image.from_config(layer.get_config())
    assert isinstance(again.position_encoding, LearnedPositionEncoding)
    assert again.position_encoding.dim == 5


@pytest.mark.parametrize("channels", [1, 3, 11])
def test_pixels_and_positions(channels):
    images = _images(4, 6, channels)
    elements = _numpy(
        Image((4, 6, channels), num_bands=5, max_resolution=(8, 20))(images)
    )
    np.testing.assert_array_equal(
        elements[..., :channels], images.reshape(2, 24, channels)
    )
    expected = reference.fourier_features((4, 6), 5, (8, 20))
    np.testing.assert_allclose(elements[1, :, channels:], expected, atol=1e-6)


def test_patches():
    images = _images(4, 6, 3)
    elements = _numpy(Image((4, 6, 3), num_bands=2, patch_size=2)(images))
    assert elements.shape == (2, 6, 12 + 10)
    for row in range(2):
        for column in range(3):
            patch = images[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            element = elements[:, 3 * row + column, :12]
            np.testing.assert_array_equal(element, patch.reshape(2, 12))
    expected = reference.fourier_features((2, 3), 2, (2, 3))
    np.testing.assert_allclose(elements[0, :, 12:], expected, atol=1e-6)


def test_default_is_the_papers_64_bands():
    assert Image((224, 224, 3)).position_encoding.num_bands == 64


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Image((8, 8)), r"`shape` must be \(height, width, channels\).*Grey"),
        (lambda: Image((8, 0, 1)), "`width` must be a positive integer"),
        (lambda: Image((8, 8, 1), patch_size=3), "multiples of `patch_size`.*Resize"),
        (lambda: Image((8, 8, 1), patch_size=0), "`patch_size` must be a positive"),
        (
            lambda: Image(
                (8, 8, 1), num_bands=4, position_encoding=FourierPositionEncoding(4)
            ),
            "for Fourier features only.*Leave them out",
        ),
        (lambda: Image((8, 8, 1))(_images(8, 8, 3)), "Received: shape .2, 8, 8, 3."),
        (lambda: Image((8, 8, 1))(_images(8, 8, 1)[0]), "must have shape.*Batch"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
