import builtins

import numpy as np
import pytest
import tensorflow as tf

from keras_perceiver.data import digits

pytestmark = pytest.mark.one_backend


def _arrays(dataset):
    images, labels = zip(*dataset.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_split_is_fixed_stratified_and_disjoint():
    first, second = (
        digits(batch_size=1, use_augmentation=False),
        digits(batch_size=1, seed=7, use_augmentation=False),
    )
    sizes = {"train": 1257, "validation": 180, "test": 360}
    seen = set()
    for name, size in sizes.items():
        images, labels = _arrays(getattr(first, name))
        assert images.shape == (size, 8, 8, 1)
        assert images.dtype == "float32"
        assert labels.dtype == "int32"
        assert (images.min(), images.max()) == (-1, 1)
        assert np.bincount(labels).min() >= 0.9 * size / 10
        again, _ = _arrays(getattr(second, name))
        keys = {image.tobytes() for image in images}
        assert keys == {image.tobytes() for image in again}
        assert not keys & seen
        seen |= keys


def test_order_and_augmentation_follow_the_seed():
    def epochs(seed):
        train = digits(batch_size=64, seed=seed).train
        return [_arrays(train) for _ in range(2)]

    (first, second), (again, _), (other, _) = epochs(0), epochs(0), epochs(1)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[1] != second[1]).any()  # reshuffled every epoch
    assert (first[1] != other[1]).any()


def test_augmentation_is_on_training_images_only_and_differs_by_image():
    plain, augmented = digits(64, use_augmentation=False), digits(64)
    for name in ("validation", "test"):
        np.testing.assert_array_equal(
            _arrays(getattr(plain, name))[0], _arrays(getattr(augmented, name))[0]
        )
    known = {image.tobytes() for image in _arrays(plain.train)[0]}
    images, labels = _arrays(augmented.train)
    changed = [image.tobytes() not in known for image in images]
    assert np.mean(changed) > 0.3
    assert np.isfinite(images).all()
    # They are still digits: the nearest unaugmented neighbor usually has the same
    # label.
    train_images, train_labels = _arrays(plain.train)
    distances = ((images[:300, None] - train_images[None]) ** 2).sum((2, 3, 4))
    assert (train_labels[distances.argmin(1)] == labels[:300]).mean() > 0.75


def test_batches_have_one_shape():
    splits = digits(batch_size=50)
    assert {len(x) for x, _ in splits.train} == {50}
    assert {len(x) for x, _ in splits.validation} | {
        len(x) for x, _ in splits.test
    } == {180}
    assert all(isinstance(split, tf.data.Dataset) for split in splits[:3])


def test_missing_scikit_learn_names_the_extra(monkeypatch):
    real_import = builtins.__import__

    def no_sklearn(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_sklearn)
    with pytest.raises(ImportError, match=r"pip install scikit-learn"):
        digits()
