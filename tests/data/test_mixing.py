import numpy as np
import pytest
import tensorflow as tf

from keras_perceiver.data import augment_dataset, cutmix, mixup, mixup_or_cutmix

pytestmark = pytest.mark.one_backend


def _batch(size=32):
    """Each image has a constant level, its index, which is also its label."""
    labels = np.arange(size, dtype="int32")
    images = np.broadcast_to(labels[:, None, None, None], (size, 8, 10, 3))
    return images.astype("float32"), labels


def _levels(labels):
    """Returns the mean level of an image with these soft labels."""
    return np.asarray(labels) @ np.arange(labels.shape[1])


def test_mixup_blends_images_as_labels():
    images, labels = _batch()
    mixed, targets = mixup(40, alpha=1.0)(images, labels, 3)
    assert mixed.shape == images.shape
    assert targets.shape == (32, 40)
    np.testing.assert_allclose(np.sum(targets, axis=1), 1, atol=1e-6)
    assert (np.ptp(mixed.numpy(), axis=(1, 2, 3)) < 1e-4).all()
    np.testing.assert_allclose(mixed[:, 0, 0, 0], _levels(targets), atol=1e-4)
    weights = targets.numpy()[np.arange(32), labels]
    assert 0.3 < weights.mean() < 0.7
    again, _ = mixup(40, alpha=1.0)(images, labels, 3)
    np.testing.assert_array_equal(again, mixed)
    assert (mixup(40, alpha=1.0)(images, labels, 4)[0] != mixed).numpy().any()
    # With a small parameter, images are almost entirely from one or the other.
    weak = mixup(40, alpha=0.01)(images, labels, 3)[1].numpy().max(axis=1)
    assert weak.mean() > 0.9


def test_cutmix_pastes_a_rectangle_as_large_as_the_label_says():
    images, labels = _batch(200)
    mixed, targets = cutmix(200)(images, labels, 3)
    mixed = mixed.numpy()
    fractions = []
    for i in range(200):
        is_other = mixed[i, ..., 0] != i
        rows, columns = np.flatnonzero(is_other.any(1)), np.flatnonzero(is_other.any(0))
        assert is_other.sum() == len(rows) * len(columns)
        if len(rows):
            assert len(set(mixed[i][is_other].ravel())) == 1
            fractions.append(is_other.mean())
            # The rectangle is rounded to pixels.
            said = 1 - targets.numpy()[i, i]
            assert abs(said - is_other.mean()) < 0.25
    assert np.max(fractions) > 0.7
    assert 0.35 < np.mean(fractions) < 0.65
    np.testing.assert_allclose(np.sum(targets, axis=1), 1, atol=1e-5)


def test_each_half_of_the_batch_by_one_of_them():
    images, labels = _batch()
    mixed, targets = mixup_or_cutmix(32, alpha=1.0)(images, tf.one_hot(labels, 32), 1)
    spread = np.ptp(mixed.numpy(), axis=(1, 2, 3))
    assert (spread[:16] < 1e-4).all()
    assert (spread[16:] > 0.5).sum() > 8
    assert targets.shape == (32, 32)


def test_labels_change_in_a_pipeline():
    dataset = tf.data.Dataset.from_tensors(_batch())
    mixed = augment_dataset(dataset, mixup(32, 1.0), 0, 0, use_labels=True)
    images, targets = next(iter(mixed))
    np.testing.assert_allclose(images[:, 0, 0, 0], _levels(targets), atol=1e-4)
