import keras
import numpy as np
import pytest

from keras_perceiver import (
    Array,
    FourierPositionEncoding,
    Image,
    LearnedPositionEncoding,
    Video,
)
from tests import contracts, reference


def _numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x))


def _random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def _images(height, width, channels, batch=2):
    rng = np.random.default_rng(0)
    return rng.normal(size=(batch, height, width, channels)).astype("float32")


@pytest.mark.parametrize(
    ("cls", "shape", "sizes", "patch_size", "resolution"),
    [
        (Image, (6, 8, 3), (6, 8, 3), 2, (5, 9)),
        (Image, (None, None, 3), (6, 8, 3), (2, 4), 9),
        (Video, (4, None, 6, 2), (4, 6, 6, 2), (2, 3, 1), (5, 9, 7)),
        (Array, (5, 3), (5, 3), (1,), (9,)),
    ],
)
def test_contract(cls, shape, sizes, patch_size, resolution):
    config = {
        "shape": shape,
        "num_bands": 2,
        "max_resolution": resolution,
        "patch_size": patch_size,
        "use_mask": True,
        "projection_dim": 7,
    }
    unknown = (0,) if shape[0] is None else ()
    contracts.check_layer(cls, config, _random(2, *sizes), unknown_length=unknown)


def test_contract_with_learned_positions():
    def config():
        encoding = LearnedPositionEncoding(5, grid=(2, 3), projected_dim=4)
        return {"shape": (None, 8, 3), "position_encoding": encoding}

    contracts.check_layer(Image, config, _images(6, 8, 3), unknown_length=(0,))


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


def test_video_patches():
    videos = _random(2, 4, 6, 4, 3)
    elements = _numpy(Video((4, 6, 4, 3), num_bands=2, patch_size=(2, 3, 2))(videos))
    assert elements.shape == (2, 2 * 2 * 2, 36 + 15)
    patch = videos[:, 2:4, 0:3, 2:4].reshape(2, 36)
    np.testing.assert_array_equal(elements[:, 4 + 0 + 1, :36], patch)
    expected = reference.fourier_features((2, 2, 2), 2, (2, 2, 2))
    np.testing.assert_allclose(elements[0, :, 36:], expected, atol=1e-6)


def test_defaults_are_the_papers():
    assert Image((224, 224, 3)).position_encoding.num_bands == 64
    video = Video((32, 224, 224, 3))
    assert video.patch_size == (2, 8, 8)
    assert video.num_inputs == 12_544


def test_one_layer_reads_every_size():
    layer = Image((None, None, 3), num_bands=3, max_resolution=9, patch_size=(2, 1))
    for height, width in ((4, 5), (2, 7)):
        images = _images(height, width, 3)
        elements = _numpy(layer(images))
        fixed = Image(
            (height, width, 3), num_bands=3, max_resolution=9, patch_size=(2, 1)
        )
        np.testing.assert_allclose(elements, _numpy(fixed(images)), atol=1e-6)
    assert layer.grid == (None, None)
    assert layer.num_inputs is None


def test_elements_count_if_one_of_their_pixels_does():
    layer = Image((4, 6, 3), num_bands=2, patch_size=2)
    mask = np.zeros((2, 4, 6), bool)
    mask[0, 3, 4] = mask[1, 0:2, 0:4] = True
    expected = np.zeros((2, 2, 3), bool)
    expected[0, 1, 2] = expected[1, 0, 0:2] = True
    found = _numpy(layer.elements_mask(mask))
    np.testing.assert_array_equal(found, expected.reshape(2, 6))
    # Padding in such an element is zero.
    images = np.where(mask[..., None], np.ones(3), np.nan).astype("float32")
    element = _numpy(layer(images, inputs_mask=mask))[0, 5, :12].reshape(2, 2, 3)
    np.testing.assert_array_equal(element[1, 0], np.ones(3))
    assert element.sum() == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Image((8, 8)), r"`shape` must be \(height, width, channels\).*axis"),
        (lambda: Image((8, 0, 1)), "`width` must be a positive integer"),
        (lambda: Image((8, 8, 1), patch_size=3), "multiples of `patch_size`.*Resize"),
        (lambda: Image((8, 8, 1), patch_size=0), "`patch_size` must be a positive"),
        (
            lambda: Image(
                (8, 8, 1), num_bands=4, position_encoding=FourierPositionEncoding(4)
            ),
            "for Fourier features only.*Remove them",
        ),
        (lambda: Image((8, 8, 1), patch_size=(2, 2, 2)), "one per axis.*2 axes"),
        (lambda: Array((3,)), "must be .*grid, channels"),
        (lambda: Video((8, 8, 1)), r"\(frames, height, width, channels\)"),
        (lambda: Image((None, 8, 1))(_images(4, 8, 1)), "`max_resolution` is requ"),
        (
            lambda: Image((None, 8, 1), position_encoding=LearnedPositionEncoding(4))(
                _images(4, 8, 1)
            ),
            "`grid` must have a",
        ),
        (
            lambda: Image((None, 8, 1), num_bands=2, max_resolution=9, patch_size=2)(
                _images(5, 8, 1)
            ),
            r"\(batch, any, 8, 1\)`, in multiples of the patch size 2.*\(2, 5, 8, 1\)",
        ),
        (
            lambda: Image((4, 6, 3))(_images(4, 6, 3), inputs_mask=np.ones((2, 24))),
            r"must have shape \(2, 4, 6\). Received: shape \(2, 24\)",
        ),
        (lambda: Image((8, 8, 1))(_images(8, 8, 3)), "Received: shape .2, 8, 8, 3."),
        (lambda: Image((8, 8, 1))(_images(8, 8, 1)[0]), "must have shape.*axis of ex"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def _randomized(layer):
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    return layer


def test_elements_are_projected_before_their_positions():
    images = _images(4, 6, 3)
    plain = _numpy(Image((4, 6, 3), num_bands=2)(images))
    layer = Image((4, 6, 3), num_bands=2, projection_dim=7)
    layer.build(images.shape)
    _randomized(layer)
    found = _numpy(layer(images))
    kernel, bias = (_numpy(weight) for weight in layer.projection.weights)
    expected = images.reshape(2, 24, 3) @ kernel + bias
    np.testing.assert_allclose(found[..., :7], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found[..., 7:], plain[..., 3:])
    assert layer.compute_output_shape(images.shape) == found.shape


def test_positions_are_added_or_concatenated():
    images, width = _images(4, 6, 3), 2 * (2 * 2 + 1)
    options = {"num_bands": 2, "projection_dim": width}
    both = Image((4, 6, 3), **options)
    added = Image((4, 6, 3), **options, use_added_positions=True)
    for layer in (both, added):
        layer.build(images.shape)
        _randomized(layer)
    elements, positions = np.split(_numpy(both(images)), 2, axis=-1)
    found = _numpy(added(images))
    np.testing.assert_allclose(found, elements + positions, rtol=1e-5, atol=1e-5)
    assert added.compute_output_shape(images.shape) == (2, 24, width)
    with pytest.raises(
        ValueError, match=r"as wide as.*width 3.*Set `projection_dim=10`"
    ):
        Image((4, 6, 3), num_bands=2, use_added_positions=True)(images)
