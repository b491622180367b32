import numpy as np
import pytest
import tensorflow as tf

from keras_perceiver.data import image_changes, point_changes, sound_changes


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
    "option", [{}, {"shift": 0.5}, {"zoom": 0.6}, {"rotation": 0.5}, {"noise": 0.5}]
)
def test_images_change_with_every_option(option):
    images = _images()
    changed = image_changes(0, **option)(images, 7).numpy()
    assert changed.shape == images.shape
    assert changed.dtype == "float32"
    assert np.abs(changed).max() <= 1
    assert np.abs(changed - images).max() > 0.01
    if option:
        usual = image_changes(0)(images, 7).numpy()
        assert np.abs(changed - usual).max() > 0.01
    np.testing.assert_array_equal(image_changes(0, **option)(images, 7), changed)
    assert (image_changes(0, **option)(images, 8).numpy() != changed).any()


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

    moved = point_changes(scale=0.0, noise=0.1)(points, 3).numpy()
    assert 0.08 < np.std(np.abs(moved[..., 1:]) - np.abs(points[..., 1:])) < 0.12


def test_sounds_move_with_their_masks():
    inputs = _sounds()
    change = sound_changes(shift=0.5, gain=(2.0, 2.0), noise=0.0)
    found = [change(inputs, key) for key in range(5)]
    delays = set()
    for changed in found:
        audio, mask = changed["audio"].numpy(), changed["audio_mask"].numpy()
        delay = int(mask[2].sum()) - 1
        delays.add(delay)
        assert 0 <= delay <= 25
        expected = np.zeros_like(audio)
        expected[:, delay:] = inputs["audio"][:, : 50 - delay]
        np.testing.assert_allclose(audio, np.clip(2 * expected, -1, 1), atol=1e-6)
        lengths = np.minimum([[50], [20 + delay], [1 + delay]], 50)
        np.testing.assert_array_equal(mask, np.arange(50) < lengths)
    assert len(delays) > 1

    noisy = sound_changes(shift=0.0, gain=(1.0, 1.0), noise=0.1)(inputs, 0)
    difference = noisy["audio"].numpy() - inputs["audio"]
    assert 0.08 < difference.std() < 0.12
    tf.debugging.assert_equal(noisy["audio_mask"], inputs["audio_mask"])
