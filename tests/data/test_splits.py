import numpy as np
import pytest
import tensorflow as tf

from keras_perceiver.data import PointFiles, folder_splits
from tests.data.files import write_points

pytestmark = pytest.mark.one_backend


@pytest.fixture
def folder(tmp_path):
    for part, count in (("train", 10), ("test", 3)):
        for label, name in enumerate(("chair", "lamp")):
            for i in range(count):
                write_points(tmp_path / part / name / f"{i}.npy", seed=10 * label + i)
    return tmp_path


def _arrays(dataset):
    return np.concatenate([inputs.numpy() for inputs, _ in dataset])


def test_reads_three_parts(folder):
    splits = folder_splits(folder, PointFiles(20), 4, validation_fraction=0.2)
    assert splits.class_names == ("chair", "lamp")
    sizes = [sum(len(labels) for _, labels in part) for part in splits[:3]]
    assert sizes == [16, 4, 6]
    train, validation = _arrays(splits.train), _arrays(splits.validation)
    # None of one in the other.
    distances = np.abs(train[:, None] - validation[None]).max(axis=(2, 3))
    assert distances.min() > 1e-3
    # The same part is held out whatever the seed.
    again = folder_splits(folder, PointFiles(20), 4, seed=1, validation_fraction=0.2)
    np.testing.assert_array_equal(_arrays(again.validation), validation)
    assert (_arrays(again.train) != train).any()


def test_changes_only_what_is_trained_on_and_anew_every_epoch(folder):
    splits = folder_splits(folder, PointFiles(20), 4, augment=lambda x, key: x * 0 + 2)
    assert (_arrays(splits.train) == 2).all()
    assert (_arrays(splits.validation) != 2).any()
    assert (_arrays(splits.test) != 2).any()

    def shift(x, key):
        return x + tf.random.stateless_uniform((), [key, 0])

    splits = folder_splits(folder, PointFiles(20), 16, augment=shift)
    first, second = _arrays(splits.train).mean(), _arrays(splits.train).mean()
    assert abs(first - second) > 1e-6
