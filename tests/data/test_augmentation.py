import numpy as np
import pytest
import tensorflow as tf

from keras_perceiver.data import (
    audio_augmentation,
    image_augmentation,
    point_cloud_augmentation,
    point_scaling,
    scale_to_unit_cube,
    video_augmentation,
)

pytestmark = pytest.mark.one_backend


def _images():
    return np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 3)).astype("float32")


def _points():
    return np.random.default_rng(0).uniform(-1, 1, (64, 5, 3)).astype("float32")


def _sounds():
    rng = np.random.default_rng(0)
    mask = np.arange(50) < np.array([[50], [20], [1]])
    audio = np.where(mask, rng.uniform(-0.5, 0.5, (3, 50)), 0).astype("float32")
    return {"audio": audio, "audio_mask": mask}


@pytest.mark.parametrize(
    "option",
    [
        {},
        {"shift": 0.5},
        {"zoom": 0.6},
        {"rotation": 0.5},
        {"contrast": 0.6},
        {"brightness": 0.6},
        {"noise": 0.5},
        {"use_flip": False},
        {"interpolation": "nearest"},
    ],
)
def test_every_option_augments_images(option):
    images = _images()
    changed = image_augmentation(**option)(images, 7).numpy()
    assert changed.shape == images.shape
    assert changed.dtype == "float32"
    assert np.abs(changed).max() <= 1
    assert np.abs(changed - images).max() > 0.01
    if option:
        usual = image_augmentation()(images, 7).numpy()
        assert np.abs(changed - usual).max() > 0.01
    np.testing.assert_array_equal(image_augmentation(**option)(images, 7), changed)
    assert (image_augmentation(**option)(images, 8).numpy() != changed).any()


def test_images_are_augmented_equally_in_every_value_range():
    images = _images()
    expected = image_augmentation()(images, 7).numpy()
    changed = image_augmentation(value_range=(0, 255))((images + 1) * 127.5, 7).numpy()
    np.testing.assert_allclose(changed / 127.5 - 1, expected, atol=1e-4)


def test_waveforms_are_augmented_without_a_mask():
    audio = np.random.default_rng(0).uniform(-1, 1, (3, 50)).astype("float32")
    inputs = {"audio": audio, "audio_mask": np.ones(audio.shape, bool)}
    expected = audio_augmentation()(inputs, 7)["audio"]
    np.testing.assert_array_equal(audio_augmentation()(audio, 7), expected)
    found = audio_augmentation()({"audio": audio}, 7)
    assert list(found) == ["audio"]
    np.testing.assert_array_equal(found["audio"], expected)


def test_nearest_interpolation_keeps_uniform_colors():
    still = {"contrast": 0, "brightness": 0, "noise": 0, "interpolation": "nearest"}
    images = _images()
    change = image_augmentation(shift=0.25, zoom=0.2, rotation=0.1, **still)
    changed = change(images, 7).numpy()
    assert (changed != images).any()
    for before, after in zip(images, changed, strict=True):
        colors = {tuple(pixel) for pixel in before.reshape(-1, 3)}
        assert {tuple(pixel) for pixel in after.reshape(-1, 3)} <= colors

    nothing = image_augmentation(shift=0, zoom=0, rotation=0, use_flip=False, **still)
    np.testing.assert_array_equal(nothing(images, 7), images)


def test_points_are_only_scaled_and_mirrored():
    points = _points()
    still = point_cloud_augmentation(scale=0.0, noise=0.0, mirror_axis=1)(
        points, 3
    ).numpy()
    np.testing.assert_array_equal(still[..., [0, 2]], points[..., [0, 2]])
    sides = still[..., 1] / points[..., 1]
    assert {-1.0, 1.0} == set(np.unique(sides.round(6)))
    assert (sides == sides[:, :1]).all()  # the same factor for the whole cloud

    stretched = point_cloud_augmentation(scale=0.2, noise=0.0)(points, 3).numpy()
    factors = np.abs(stretched / points)
    np.testing.assert_allclose(factors, factors[:, :1].repeat(5, 1), rtol=1e-4)
    assert factors.min() < 0.85
    assert factors.max() > 1.15

    turned = point_cloud_augmentation(scale=0.0, noise=0.0, rotation=0.5)(
        points, 3
    ).numpy()
    np.testing.assert_array_equal(turned[..., 1], points[..., 1])
    radii = [np.hypot(p[..., 0], p[..., 2]) for p in (turned, points)]
    np.testing.assert_allclose(*radii, atol=1e-6)
    assert np.abs(turned - points).max() > 0.1

    moved = point_cloud_augmentation(scale=0.0, noise=0.1)(points, 3).numpy()
    assert 0.08 < np.std(np.abs(moved[..., 1:]) - np.abs(points[..., 1:])) < 0.12


def test_waveforms_shift_with_their_masks():
    inputs = _sounds()
    change = audio_augmentation(
        0.5, speed=0.0, gain=(2.0, 2.0), noise=0.0, use_polarity_inversion=False
    )
    found = [change(inputs, key) for key in range(5)]
    delays = set()
    for changed in found:
        audio, mask = changed["audio"].numpy(), changed["audio_mask"].numpy()
        delay = mask.sum(1, keepdims=True) - [[50], [20], [1]]
        delays |= set(delay[1:].ravel())
        assert delays <= set(range(26))
        for i in (1, 2):
            expected = np.roll(inputs["audio"][i], delay[i])  # it ends with zeros
            np.testing.assert_allclose(audio[i], 2 * expected, atol=1e-6)
        lengths = np.add(delay, [[50], [20], [1]])
        np.testing.assert_array_equal(mask[1:], np.arange(50) < lengths[1:])
        assert mask[0].all()
    assert len(delays) > 2  # each waveform independently

    times = np.arange(1000) / 100
    wave = {
        "audio": np.sin(times)[None].astype("float32"),
        "audio_mask": np.arange(1000)[None] < 500,
    }
    change = audio_augmentation(
        0.0, speed=0.5, gain=(1.0, 1.0), noise=0.0, use_polarity_inversion=False
    )
    changed = change(wave, 1)
    rate = 500 / changed["audio_mask"].numpy().sum()
    assert 0.5 < rate < 0.95 or 1.05 < rate < 1.5
    inside = times * rate < 9.9
    np.testing.assert_allclose(
        changed["audio"][0][inside], np.sin(rate * times[inside]), atol=0.02
    )

    many = {name: np.repeat(array, 40, axis=0) for name, array in inputs.items()}
    change = audio_augmentation(0.0, speed=0.0, gain=(1.0, 1.0), noise=0.0)
    signs = change(many, 0)["audio"][:, 0] / many["audio"][:, 0]
    np.testing.assert_allclose(np.abs(signs), 1)
    assert 30 < np.sum(signs < 0) < 90

    silence = {"audio": np.zeros((400, 100)), "audio_mask": np.ones((400, 100), bool)}
    change = audio_augmentation(shift=0.0, speed=0.0, gain=(1.0, 1.0), noise=0.1)
    noisy = change({**silence, "audio": silence["audio"].astype("float32")}, 0)
    _check_decibels(noisy["audio"].numpy().std(axis=1), 0.1)
    tf.debugging.assert_equal(noisy["audio_mask"], silence["audio_mask"])


def _check_decibels(levels, maximum):
    """Checks that levels are uniform in decibels, from the maximum to 80 below."""
    decibels = np.sort(20 * np.log10(levels / maximum))
    np.testing.assert_allclose(decibels, np.linspace(-80, 0, len(levels)), atol=8)


def test_noise_of_images_has_all_levels():
    change = image_augmentation(
        0.0, 0.0, 0.0, contrast=0.0, brightness=0.0, noise=0.1, use_flip=False
    )
    noisy = change(np.zeros((400, 6, 6, 3), "float32"), 1).numpy()
    _check_decibels(noisy.std(axis=(1, 2, 3)), 0.1)


def test_points_are_scaled_independently_then_to_the_unit_cube():
    points = _points() + 5
    cube = scale_to_unit_cube(points).numpy()
    np.testing.assert_allclose(cube.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(np.abs(cube).max(axis=(1, 2)), 1, rtol=1e-6)
    ratio = np.ptp(points, axis=1) / np.ptp(cube, axis=1)
    np.testing.assert_allclose(ratio, ratio[:, :1].repeat(3, 1), rtol=1e-4)
    np.testing.assert_array_equal(scale_to_unit_cube(np.ones((2, 4, 3), "float32")), 0)

    np.testing.assert_allclose(point_scaling(0.0)(points, 3), cube, atol=1e-5)
    change = point_scaling(0.1)
    scaled = change(points, 3).numpy()
    np.testing.assert_allclose(scaled.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(np.abs(scaled).max(axis=(1, 2)), 1, rtol=1e-6)
    assert 0.01 < np.abs(scaled - cube).mean() < 0.5
    np.testing.assert_array_equal(change(points, 3), scaled)
    assert (change(points, 4).numpy() != scaled).any()


def _videos():
    """Three frames of one image, whose red encodes the column and green the row."""
    rows, columns = np.mgrid[:12, :16] / 20 - 0.4
    image = np.stack([columns, rows, np.zeros_like(rows)], axis=-1)
    return np.broadcast_to(image, (40, 3, 12, 16, 3)).astype("float32")


_STILL = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0, "use_flip": False}


def test_all_frames_are_cropped_and_flipped_equally():
    videos = _videos()
    still = video_augmentation(**_STILL)(videos, 3)
    np.testing.assert_allclose(still, videos, atol=1e-5)
    cut = video_augmentation(size=8, **_STILL)(videos, 3).numpy()
    assert cut.shape == (40, 3, 8, 8, 3)
    corners = np.rint((cut[:, :, 0, 0] + 0.4) * 20).astype(int)
    assert (corners == corners[:, :1]).all()
    assert set(corners[:, 0, 0]) == set(range(9))  # columns
    assert set(corners[:, 0, 1]) == set(range(5))
    for video, (column, row, _) in zip(cut, corners[:, 0], strict=True):
        expected = videos[0, :, row : row + 8, column : column + 8]
        np.testing.assert_allclose(video, expected, atol=1e-5)
    mirrored = video_augmentation(**{**_STILL, "use_flip": True})(videos, 3).numpy()
    is_mirrored = [np.allclose(v, videos[0, :, :, ::-1], atol=1e-5) for v in mirrored]
    is_same = [np.allclose(v, videos[0], atol=1e-5) for v in mirrored]
    assert np.add(is_mirrored, is_same).all()
    assert 0.2 < np.mean(is_mirrored) < 0.8


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_all_frames_change_their_colors_equally(name):
    videos = _videos()
    changed = video_augmentation(**{**_STILL, name: 0.3})(videos, 3).numpy()
    assert np.abs(changed).max() <= 1
    np.testing.assert_allclose(changed, changed[:, :1].repeat(3, 1), atol=1e-5)
    strengths = np.abs(changed - videos).mean(axis=(1, 2, 3, 4))
    assert len(set(strengths.round(5))) > 20  # each video independently
    assert strengths.max() > 0.02
    weaker = video_augmentation(**{**_STILL, name: 0.1})(videos, 3).numpy()
    assert np.abs(weaker - videos).mean() < 0.6 * strengths.mean()
    if name in ("brightness", "contrast"):
        # In both directions.
        spread = (
            changed.std((1, 2, 3, 4))
            if name == "contrast"
            else changed.mean((1, 2, 3, 4))
        )
        usual = videos[0].std() if name == "contrast" else videos[0].mean()
        assert spread.min() < usual - 0.02
        assert spread.max() > usual + 0.02
