import numpy as np
import pytest
import tensorflow as tf

from keras_perceiver.data import (
    inception_crop,
    overlapping_clips,
    time_crop,
)

pytestmark = pytest.mark.one_backend


def _jpeg(height, width):
    """Red grows to the right, green downwards, blue is 100."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack(
        [columns * 255 / width, rows * 255 / height, np.full_like(rows, 100)], axis=-1
    )
    encoded = tf.io.encode_jpeg(
        image.astype("uint8"), quality=100, chroma_downsampling=False
    )
    return encoded


def _part(image):
    """Returns the width and height of a crop as fractions of the image."""
    image = np.asarray(image)
    across = abs(image[:, -1, 0].mean() - image[:, 0, 0].mean()) / 255
    down = (image[-1, :, 1].mean() - image[0, :, 1].mean()) / 255
    return across, down


def test_inception_crop_is_a_part_of_about_a_square():
    encoded = _jpeg(120, 160)
    areas, is_mirrored = [], []
    for key in range(60):
        image = inception_crop(encoded, key, 32)
        assert image.shape == (32, 32, 3)
        assert 0 <= np.min(image) <= np.max(image) <= 255
        across, down = _part(image)
        ratio = across * 160 / (down * 120)
        assert 0.65 < ratio < 1.55
        areas.append(across * down)
        is_mirrored.append(float(image[16, 0, 0]) > float(image[16, -1, 0]))
        again = inception_crop(encoded, key, 32)
        np.testing.assert_array_equal(image, again)
    assert 0.05 < min(areas) < 0.25
    assert max(areas) > 0.6
    assert 0.25 < np.mean(is_mirrored) < 0.75

    small = [_part(inception_crop(encoded, k, 32, area=(0.1, 0.15))) for k in range(20)]
    assert max(a * b for a, b in small) < 0.2
    wide = inception_crop(encoded, 3, 32, area=(0.1, 0.3), aspect_ratio=(2.0, 2.1))
    across, down = _part(wide)
    assert across * 160 / (down * 120) > 1.7
    for key in range(10):
        image = inception_crop(encoded, key, 32, use_flip=False)
        assert float(image[16, 0, 0]) < float(image[16, -1, 0])


def test_time_crop_differs_by_example():
    sounds = np.tile(np.arange(100, dtype="float32"), (30, 1))
    cut = time_crop(60)
    parts = cut(sounds, 5).numpy()
    assert parts.shape == (30, 60)
    starts = parts[:, 0]
    np.testing.assert_array_equal(parts, starts[:, None] + np.arange(60))
    assert starts.min() < 10
    assert starts.max() > 30
    np.testing.assert_array_equal(cut(sounds, 5), parts)
    assert (cut(sounds, 6).numpy() != parts).any()
    padded = time_crop(120)(sounds[:1], 0).numpy()
    np.testing.assert_array_equal(padded, [[*range(100), *[0] * 20]])


def test_overlapping_clips_go_from_end_to_end():
    sound = np.arange(100)
    clips = overlapping_clips(sound, 25).numpy()
    assert clips.shape == (16, 25)
    np.testing.assert_array_equal(clips[:, 0], np.arange(16) * 5)
    np.testing.assert_array_equal(clips[3], np.arange(15, 40))
    video = np.zeros((50, 4, 6, 3), "float32")
    assert overlapping_clips(video, 32, num_clips=3).shape == (3, 32, 4, 6, 3)
    steps = overlapping_clips(sound, 25, num_clips=4, step=20)
    np.testing.assert_array_equal(steps[:, 0], [0, 20, 40, 60])
    short = overlapping_clips(sound[:20], 25, num_clips=2).numpy()
    np.testing.assert_array_equal(short, [[*range(20), *[0] * 5]] * 2)
    with pytest.raises(ValueError, match="`num_clips` must be a positive integer"):
        overlapping_clips(sound, 25, num_clips=0)
