import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from keras_perceiver.data import rand_augment
from keras_perceiver.data.rand_augment import _ops

pytestmark = pytest.mark.one_backend

_SHAPE = (24, 30, 3)


def _photograph(seed=0):
    rng = np.random.default_rng(seed)
    small = rng.integers(20, 220, (4, 5, 3)).astype("uint8")
    large = Image.fromarray(small).resize((30, 24), Image.Resampling.BICUBIC)
    return np.asarray(large)


def _changed(number, image, strength, u=(0.9, 0.5, 0.5)):
    """Returns the image after an operation, rounded to levels."""
    changed = _ops(strength)[number](image.astype("float32"), np.array(u, "float32"))
    return np.floor(np.clip(changed, 0, 255))


def _affine(image, *numbers):
    return image.transform(
        image.size, Image.Transform.AFFINE, numbers, fillcolor=(128, 128, 128)
    )


# At strength 0.8, enhancements have a factor of 1.54.
_PILLOW = [
    (0, lambda image: ImageOps.autocontrast(image)),
    (1, ImageOps.equalize),
    (2, ImageOps.invert),
    (3, lambda image: ImageOps.posterize(image, 3)),
    (4, lambda image: ImageOps.solarize(image, 204)),
    (6, lambda image: ImageEnhance.Color(image).enhance(1.54)),
    (7, lambda image: ImageEnhance.Contrast(image).enhance(1.54)),
    (8, lambda image: ImageEnhance.Brightness(image).enhance(1.54)),
    (9, lambda image: ImageEnhance.Sharpness(image).enhance(1.54)),
    (10, lambda image: image.rotate(24, fillcolor=(128, 128, 128))),
    (11, lambda image: _affine(image, 1, 0.24, 0, 0, 1, 0)),
    (12, lambda image: _affine(image, 1, 0, 0, 0.24, 1, 0)),
]


@pytest.mark.parametrize(("number", "expected"), _PILLOW)
def test_orientations_are_those_of_pillow(number, expected):
    image = _photograph()
    expected = np.asarray(expected(Image.fromarray(image))).astype("float32")
    assert np.abs(expected - image).mean() > 0.5
    changed = _changed(number, image, 0.8)
    if number in (10, 11, 12):
        # Pillow samples at pixel centers, so most pixels are the same.
        assert (np.abs(changed - expected) < 25).mean() > 0.9
    else:
        np.testing.assert_allclose(changed, expected, atol=2.01)


def test_orientations_that_pillow_lacks():
    image = _photograph()
    brighter = np.where(image < 128, image + 88.0, image)
    np.testing.assert_array_equal(_changed(5, image, 0.8), brighter)
    moved = _changed(13, image, 0.05)  # by 5 pixels
    np.testing.assert_array_equal(moved[:, :-5], image[:, 5:])
    np.testing.assert_array_equal(moved[:, -5:], 128)
    other = _changed(13, image, 0.05, u=(0.1, 0, 0))
    np.testing.assert_array_equal(other[:, 5:], image[:, :-5])
    moved = _changed(14, image, 0.05)
    np.testing.assert_array_equal(moved[:-5], image[5:])
    hidden = _changed(15, image, 0.1, u=(0, 0.5, 0.9))  # 4 pixels around (12, 27)
    np.testing.assert_array_equal(hidden[8:16, 23:], 128)
    hidden[8:16, 23:] = image[8:16, 23:]
    np.testing.assert_array_equal(hidden, image)


def test_each_image_is_augmented_independently():
    image = _photograph().astype("float32") / 127.5 - 1
    images = np.stack([image] * 24)
    change = rand_augment(num_ops=2, magnitude=5)
    changed = change(images, 3).numpy()
    assert changed.shape == images.shape
    assert np.abs(changed).max() <= 1
    assert len({x.tobytes() for x in changed}) > 12
    np.testing.assert_array_equal(change(images, 3), changed)
    assert (change(images, 4).numpy() != changed).any()
    one = change(image, 5).numpy()
    assert one.shape == _SHAPE

    in_bytes = rand_augment(num_ops=2, magnitude=5, value_range=(0, 255))
    found = in_bytes((images + 1) * 127.5, 3).numpy() / 127.5 - 1
    np.testing.assert_allclose(found, changed, atol=1e-5)

    stronger = rand_augment(num_ops=6, magnitude=10)(images, 3).numpy()
    assert np.abs(stronger - images).mean() > 1.2 * np.abs(changed - images).mean()


@pytest.mark.parametrize("options", [{"num_ops": 0}, {"magnitude": 11}])
def test_bad_arguments(options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}` must be"):
        rand_augment(**options)
