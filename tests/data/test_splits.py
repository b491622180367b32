import numpy as np
import pytest
import tensorflow as tf

from keras_perceiver import ImagePreprocessor, PointCloudPreprocessor
from keras_perceiver.data import (
    Splits,
    digits,
    epoch_order,
    folder_splits,
    image_augmentation,
    mixup,
    read_folder,
)
from tests.data.files import write_image, write_points

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
    splits = folder_splits(
        folder, PointCloudPreprocessor(20), 4, validation_fraction=0.2
    )
    assert splits.class_names == ("chair", "lamp")
    sizes = [sum(len(labels) for _, labels in part) for part in splits[:3]]
    assert sizes == [16, 4, 6]
    train, validation = _arrays(splits.train), _arrays(splits.validation)
    # The splits are disjoint.
    distances = np.abs(train[:, None] - validation[None]).max(axis=(2, 3))
    assert distances.min() > 1e-3
    # The same part is held out for every seed.
    again = folder_splits(
        folder, PointCloudPreprocessor(20), 4, seed=1, validation_fraction=0.2
    )
    np.testing.assert_array_equal(_arrays(again.validation), validation)
    assert (_arrays(again.train) != train).any()


def test_holds_out_a_missing_test_split(folder):
    options = {"validation_fraction": 0.2, "test_fraction": 0.3}
    splits = folder_splits(folder / "train", PointCloudPreprocessor(20), 4, **options)
    assert splits.class_names == ("chair", "lamp")
    parts = [np.concatenate([x for x, _ in part]) for part in splits[:3]]
    assert [len(part) for part in parts] == [12, 2, 6]
    points = np.concatenate(parts)
    assert len(np.unique(points[:, 0], axis=0)) == 20  # no file is in two parts


def test_skips_bad_files_on_request(folder):
    (folder / "train" / "lamp" / "bad.npy").write_text("text")
    preprocessor = PointCloudPreprocessor(20)
    with pytest.raises(ValueError, match=r"bad\.npy"):
        folder_splits(folder, preprocessor, 4)
    with pytest.warns(UserWarning, match="Bad files skipped: 1, examples read: 20"):
        splits = folder_splits(folder, preprocessor, 4, skip_bad_files=True)
    assert sum(len(labels) for part in splits[:2] for _, labels in part) >= 16


def test_augments_training_data_only_and_differently_every_epoch(folder):
    splits = folder_splits(
        folder, PointCloudPreprocessor(20), 4, augment=lambda x, key: x * 0 + 2
    )
    assert (_arrays(splits.train) == 2).all()
    assert (_arrays(splits.validation) != 2).any()
    assert (_arrays(splits.test) != 2).any()

    def shift(x, key):
        return x + tf.random.stateless_uniform((), [key, 0])

    splits = folder_splits(folder, PointCloudPreprocessor(20), 16, augment=shift)
    first, second = _arrays(splits.train).mean(), _arrays(splits.train).mean()
    assert abs(first - second) > 1e-6


def test_augmentation_gets_values_in_its_range(tmp_path):
    for name in "ab":
        for i in range(4):
            write_image(tmp_path / name / f"{i}.png", (8, 8, 3), seed=i)

    def negative(images, key):
        return -images

    negative.value_range = (-1.0, 1.0)
    mean, deviation = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.4])
    normalized = {"mean": mean, "standard_deviation": deviation}
    for settings, expected in (
        ({}, lambda x: -x),
        ({"value_range": (0, 1)}, lambda x: 1 - x),
        (
            {"value_range": (0, 1), **normalized},
            lambda x: (1 - (x * deviation + mean) - mean) / deviation,
        ),
    ):
        files = ImagePreprocessor((8, 8, 3), **settings)
        plain = _arrays(folder_splits(tmp_path, files, 2).train)
        found = _arrays(folder_splits(tmp_path, files, 2, augment=negative).train)
        np.testing.assert_allclose(found, expected(plain), atol=1e-5)


@pytest.mark.slow
def test_mixes_training_data_only(tmp_path):
    for part, name, i in [
        (p, n, i) for p in ("train", "test") for n in "ab" for i in range(8)
    ]:
        write_image(
            tmp_path / part / name / f"{i}.png", (8, 8, 3), seed=8 * ord(name) + i
        )
    files = ImagePreprocessor((8, 8, 3))
    splits = folder_splits(tmp_path, files, 4, augment=image_augmentation(), mix=mixup)
    for _, labels in splits.epochs(0, 2):
        assert labels.shape == (4, 2)
        np.testing.assert_allclose(labels.numpy().sum(axis=1), 1, atol=1e-6)
    labels = np.concatenate([labels for _, labels in splits.epochs(0, 2)])
    assert ((labels > 0) & (labels < 1)).any()
    for part in (splits.validation, splits.test):
        assert all(labels.dtype == "int32" for _, labels in part)
    again = folder_splits(tmp_path, files, 4, augment=image_augmentation(), mix=mixup)
    np.testing.assert_array_equal(
        _arrays(again.epochs(0, 2)), _arrays(splits.epochs(0, 2))
    )
    other = folder_splits(tmp_path, files, 4, augment=image_augmentation())
    assert (_arrays(other.epochs(0, 2)) != _arrays(splits.epochs(0, 2))).any()


def test_groups_stay_together(folder):
    # Files 0 to 4 and 5 to 9 of each class belong together.
    splits = folder_splits(
        folder, PointCloudPreprocessor(20), 1, group=lambda stem: int(stem) // 5
    )
    assert [sum(1 for _ in part) for part in splits[:2]] == [10, 10]


def test_modalities_may_be_missing(folder):
    for part in ("train", "test"):
        write_image(folder / part / "lamp" / "1.png", (4, 4, 3))
    files = {
        "points": PointCloudPreprocessor(20),
        "image": ImagePreprocessor((4, 4, 3)),
    }
    with pytest.raises(ValueError, match="allow_missing=True"):
        folder_splits(folder, files, 2)
    splits = folder_splits(folder, files, 2, allow_missing=True)
    there = [inputs["image_mask"].numpy().any((1, 2)).sum() for inputs, _ in splits[2]]
    assert sum(there) == 1


def test_resuming_does_not_read_earlier_files(folder, monkeypatch):
    def shift(x, key):
        return x + tf.random.stateless_uniform((), [key, 0])

    splits = folder_splits(folder, PointCloudPreprocessor(20), 4, augment=shift)
    whole = [x.numpy() for x, _ in splits.epochs(1, 3)]
    num_batches = len(splits.train)
    later = [x.numpy() for x, _ in splits.epochs(1, 3, num_done=num_batches - 1)]
    np.testing.assert_array_equal(later, whole[num_batches - 1 :])

    read = []
    real = PointCloudPreprocessor.read
    monkeypatch.setattr(
        PointCloudPreprocessor,
        "read",
        lambda self, path: read.append(path) or real(self, path),
    )
    files = read_folder(
        folder / "train", PointCloudPreprocessor(20), 4, check_files=False
    )
    assert len(_arrays(files.epoch(0, num_done=4))) == len(read) == 4


def _examples(order=None):
    order = tf.data.Dataset.range(6) if order is None else order
    return order.map(lambda i: (tf.cast(i, "float32")[None], i % 2)).batch(2)


def test_any_datasets():
    held_out = _examples()
    splits = Splits.from_datasets(_examples(), held_out, held_out, ["even", "odd"])
    assert splits.class_names == ("even", "odd")
    assert len(splits.train) == 3
    np.testing.assert_array_equal(_arrays(splits.train)[:, 0], range(6))
    later = _arrays(splits.epochs(3, 5, num_done=2))
    np.testing.assert_array_equal(later[:, 0], [4, 5, *range(6)])
    assert splits.test is held_out

    def train(number):
        return _examples(epoch_order(6, 0, number))

    splits = Splits.from_datasets(train, held_out, held_out, ["even", "odd"], seed=1)
    whole = _arrays(splits.epochs(0, 5))[:, 0].reshape(5, 6)
    assert len(set(map(tuple, whole))) > 2
    assert (np.sort(whole) == range(6)).all()
    later = _arrays(splits.epochs(3, 5, num_done=1))
    np.testing.assert_array_equal(later[:, 0], whole[3:].ravel()[2:])
    read = [tuple(_arrays(splits.train)[:, 0]) for _ in range(5)]
    assert len(set(read)) > 2


def test_datasets_that_cannot_be_trained_on():
    good = _examples()
    options = tf.data.Options()
    options.deterministic = False
    for train, error, message in (
        (
            np.zeros(3),
            TypeError,
            "`train` must be a tf.data.Dataset.*from_tensor_slices",
        ),
        (tf.data.Dataset.range(3), ValueError, "`train` must be pairs"),
        (good.repeat(), ValueError, "must be known"),
        (good.filter(lambda x, y: True), ValueError, "must be known"),
        (good.with_options(options), ValueError, "must be deterministic"),
    ):
        with pytest.raises(error, match=message):
            Splits.from_datasets(train, good, good, ["even", "odd"])
    with pytest.raises(TypeError, match="`test` must be a tf.data.Dataset"):
        Splits.from_datasets(good, good, [1], ["even", "odd"])


def test_merge_validation_reads_each_of_its_examples_once_per_epoch():
    splits = digits(batch_size=64)
    both = splits.merge_validation(50)
    num_batches = len(splits.train) + 4  # 180 in parts of 50
    assert len(both.train) == num_batches
    batches = list(both.epoch(3).as_numpy_iterator())
    assert len(batches) == num_batches
    sizes = [len(labels) for _, labels in batches]
    assert sorted(sizes) == [30, 50, 50, 50] + [64] * len(splits.train)
    places = [i for i, size in enumerate(sizes) if size != 64]
    assert min(np.diff(places)) >= num_batches // 4 - 1  # spread evenly
    found = np.concatenate([batches[i][0] for i in places])
    (expected, _), *_ = splits.validation.as_numpy_iterator()
    np.testing.assert_array_equal(found, expected)
    rest = list(both.epoch(3, num_done=20).as_numpy_iterator())
    for (x, _), (y, _) in zip(rest, batches[20:], strict=True):
        np.testing.assert_array_equal(x, y)
