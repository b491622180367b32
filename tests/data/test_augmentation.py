import numpy as np
import pytest
import tensorflow as tf

from keras_perceiver.data import image_changes, point_changes, sound_changes

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
    ],
)
def test_images_change_with_every_option(option):
    images = _images()
    changed = image_changes(**option)(images, 7).numpy()
    assert changed.shape == images.shape
    assert changed.dtype == "float32"
    assert np.abs(changed).max() <= 1
    assert np.abs(changed - images).max() > 0.01
    if option:
        usual = image_changes()(images, 7).numpy()
        assert np.abs(changed - usual).max() > 0.01
    np.testing.assert_array_equal(image_changes(**option)(images, 7), changed)
    assert (image_changes(**option)(images, 8).numpy() != changed).any()


def test_points_stay_where_they_are_but_for_size_and_side():
    points = _points()
    still = point_changes(scale=0.0, noise=0.0, mirror_axis=1)(points, 3).numpy()
    np.testing.assert_array_equal(still[..., [0, 2]], points[..., [0, 2]])
    sides = still[..., 1] / points[..., 1]
    assert {-1.0, 1.0} == set(np.unique(sides.round(6)))
    assert (sides == sides[:, :1]).all()  # a cloud as a whole

    stretched = point_changes(scale=0.2, noise=0.0)(points, 3).numpy()
    factors = np.abs(stretched / points)
    np.testing.assert_allclose(factors, factors[:, :1].repeat(5, 1), rtol=1e-4)
    assert factors.min() < 0.85
    assert factors.max() > 1.15

    turned = point_changes(scale=0.0, noise=0.0, rotation=0.5)(points, 3).numpy()
    np.testing.assert_array_equal(turned[..., 1], points[..., 1])
    radii = [np.hypot(p[..., 0], p[..., 2]) for p in (turned, points)]
    np.testing.assert_allclose(*radii, atol=1e-6)
    assert np.abs(turned - points).max() > 0.1

    moved = point_changes(scale=0.0, noise=0.1)(points, 3).numpy()
    assert 0.08 < np.std(np.abs(moved[..., 1:]) - np.abs(points[..., 1:])) < 0.12


def test_sounds_move_with_their_masks():
    inputs = _sounds()
    change = sound_changes(shift=0.5, speed=0.0, gain=(2.0, 2.0), noise=0.0)
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
    assert len(delays) > 2  # each sound for itself

    times = np.arange(1000) / 100
    wave = {
        "audio": np.sin(times)[None].astype("float32"),
        "audio_mask": np.arange(1000)[None] < 500,
    }
    change = sound_changes(shift=0.0, speed=0.5, gain=(1.0, 1.0), noise=0.0)
    changed = change(wave, 1)
    rate = 500 / changed["audio_mask"].numpy().sum()
    assert 0.5 < rate < 0.95 or 1.05 < rate < 1.5
    inside = times * rate < 9.9
    np.testing.assert_allclose(
        changed["audio"][0][inside], np.sin(rate * times[inside]), atol=0.02
    )

    noisy = sound_changes(shift=0.0, speed=0.0, gain=(1.0, 1.0), noise=0.1)(inputs, 0)
    difference = noisy["audio"].numpy() - inputs["audio"]
    assert 0.08 < difference.std() < 0.12
    tf.debugging.assert_equal(noisy["audio_mask"], inputs["audio_mask"])
