import numpy as np
import pytest
import tensorflow as tf

from keras_perceiver import PointCloudPreprocessor
from keras_perceiver.data import augment_dataset, digits, read_folder
from tests.data.files import write_points

pytestmark = pytest.mark.one_backend


def _arrays(dataset):
    return [np.concatenate([images.numpy().ravel() for images, _ in dataset])]


def _same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_epoch_depends_on_its_number_and_the_seed():
    splits, again, other = digits(64, 0), digits(64, 0), digits(64, 1)
    first = _arrays(splits.epoch(3))
    assert _same(first, _arrays(splits.epoch(3)))  # iterated over twice
    assert _same(first, _arrays(again.epoch(3)))
    assert not _same(first, _arrays(splits.epoch(4)))
    assert not _same(first, _arrays(other.epoch(3)))
    assert not _same(_arrays(splits.train), _arrays(splits.train))


def test_epoch_has_every_example_once():
    splits = digits(419, 0, use_augmentation=False)  # a third of all
    first, second = (_arrays(splits.epoch(number))[0] for number in (0, 1))
    first, second = first.reshape(1257, 64), second.reshape(1257, 64)
    assert (first != second).any()
    np.testing.assert_array_equal(*(x[np.lexsort(x.T)] for x in (first, second)))


def test_epochs_start_at_any_step():
    splits = digits(200, 0)
    whole = [images.numpy() for images, _ in splits.epochs(0, 3)]
    num_batches = int(splits.train.cardinality())
    assert len(whole) == 3 * num_batches
    later = splits.epochs(1, 3, num_done=2)
    for expected, (images, _) in zip(whole[num_batches + 2 :], later, strict=True):
        np.testing.assert_array_equal(images, expected)


def test_epoch_of_a_folder(tmp_path):
    for name in ("chair", "lamp"):
        for i in range(6):
            write_points(tmp_path / name / f"{i}.npy", seed=i, num_points=5 + i)
    files = PointCloudPreprocessor()  # of variable length, so in buckets
    folder = read_folder(tmp_path, files, batch_size=2, seed=3)

    def shapes(number):
        return [
            (tuple(points["points"].shape), labels.numpy().tolist())
            for points, labels in folder.epoch(number)
        ]

    assert shapes(0) == shapes(0)
    later = [labels.numpy().tolist() for _, labels in folder.epoch(0, num_done=2)]
    assert later == [labels for _, labels in shapes(0)[2:]]
    assert len({str(shapes(number)) for number in range(5)}) > 1
    assert sum(shape[0] for shape, _ in shapes(0)) == 12


def test_augmentation_depends_on_the_epoch():
    dataset = tf.data.Dataset.from_tensor_slices((np.zeros((4, 1)), np.zeros(4)))

    def change(inputs, key):
        return inputs + tf.cast(key, inputs.dtype)

    def keys(seed, epoch=None):
        changed = augment_dataset(dataset, change, seed, epoch)
        return lambda: [float(x[0]) for x, _ in changed]

    assert keys(0, 1)() == keys(0, 1)()
    assert len(set(keys(0, 1)())) == 4
    assert keys(0, 1)() != keys(0, 2)()
    assert keys(0, 1)() != keys(1, 1)()
    free = keys(0)
    assert free() != free()
