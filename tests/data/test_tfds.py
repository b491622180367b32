import re
import socket
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_perceiver.data import tfds as our_tfds
from keras_perceiver.data import tfds_splits
from keras_perceiver.data.builders import modelnet40
from tests.data.archives import accept_any_archive, write_points_2048

pytestmark = pytest.mark.one_backend


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """32 point clouds whose coordinates are the index of the cloud, and 5 for the test."""
    folder = tmp_path_factory.mktemp("tfds")
    with pytest.MonkeyPatch.context() as monkeypatch:
        accept_any_archive(monkeypatch)
        write_points_2048(folder, num_train=(20, 12), num_test=(5,))
        _read(folder, manual_folder=folder)
    return folder


def _read(folder, batch_size=4, **options):
    return tfds_splits(
        "modelnet40/points_2048",
        batch_size,
        folder=folder,
        **{"train_split": "train", "validation_split": "train[:25%]", **options},
    )


def _numbers(dataset):
    """Returns the indices of the examples in each batch."""
    return [points[:, 0, 0].numpy().tolist() for points, _ in dataset]


def test_every_example_once_in_an_order_of_the_epoch(prepared):
    splits = _read(prepared, batch_size=5)
    epochs = [_numbers(splits.epoch(number)) for number in (0, 0, 1)]
    assert epochs[0] == epochs[1]
    assert epochs[0] != epochs[2]
    assert [len(batch) for batch in epochs[0]] == [5] * 6  # two of 32 are left over
    assert len({n for batch in epochs[0] for n in batch}) == 30
    assert _numbers(_read(prepared, batch_size=5, seed=1).epoch(0)) != epochs[0]
    assert _numbers(splits.train) != _numbers(splits.train)
    assert len(splits.train) == 6
    assert [len(batch) for batch in _numbers(splits.test)] == [5]
    assert sorted(_numbers(splits.test)[0]) == list(range(32, 37))
    assert len(splits.validation) == 2
    assert sum(map(len, _numbers(splits.validation))) == 8
    assert splits.class_names == modelnet40.CLASS_NAMES
    for points, labels in splits.test:
        assert points.dtype == "float32"
        assert labels.dtype == "int32"
        np.testing.assert_array_equal(labels, points[:, 0, 0] % 40)


def test_resuming_does_not_read_earlier_batches(prepared, monkeypatch):
    def augment(points, key):
        return points + tf.cast(tf.random.stateless_uniform([], [key, 0]), "float32")

    def prepare_train(example, key):
        noise = tf.random.stateless_uniform([], [key, 0])
        return example["points"] + noise, example["label"]

    def mix(points, labels, key):
        return points + tf.random.stateless_uniform([], [key, 1]), labels

    splits = _read(prepared, augment=augment, prepare_train=prepare_train, mix=mix)
    whole = _numbers(splits.epochs(2, 4))
    assert len({number % 1 for batch in whole for number in batch}) == 2 * 32

    read = []
    real = our_tfds._Source.read

    def spy(self, indices):
        read.extend(indices.tolist())
        return real(self, indices)

    monkeypatch.setattr(our_tfds._Source, "read", spy)
    splits = _read(prepared, augment=augment, prepare_train=prepare_train, mix=mix)
    assert _numbers(splits.epochs(2, 3, num_done=6)) == whole[6:8]
    assert len(read) == 8
    assert _numbers(splits.epochs(2, 4, num_done=6)) == whole[6:]


def test_processes_share_each_batch(prepared):
    def shift(points, key):
        return points + tf.random.stateless_uniform([], [key, 0], 0.1, 0.9)

    alone = _numbers(_read(prepared).epoch(3))
    parts = [
        _read(prepared, augment=shift, num_processes=2, process_index=i)
        for i in range(2)
    ]
    assert len(parts[0].train) == len(parts[1].train) == 8
    parts = [_numbers(part.epoch(3)) for part in parts]
    for batch, first, second in zip(alone, *parts, strict=True):
        assert [n // 1 for n in first + second] == batch
    changes = [[batch[0] % 1 for batch in part] for part in parts]
    assert len(set(np.round(np.ravel(changes), 4))) == 16  # other ones in each process
    for i, part in enumerate(parts):  # the same, asked of splits that are there
        own = _read(prepared, augment=shift).shard(2, i)
        assert len(own.train) == 8
        assert _numbers(own.epoch(3)) == part
    last = _read(prepared, num_processes=2, process_index=1)
    assert len(_numbers(last.test)[0]) + len(_numbers(last.test)[1]) == 5


def test_test_data_may_be_prepared_differently(prepared):
    splits = _read(
        prepared,
        prepare=lambda example: (example["points"] * 0 + 1, example["label"]),
        prepare_test=lambda example: (example["points"] * 0 + 2, example["label"]),
    )
    found = [np.unique(np.ravel(_numbers(part.take(1)))) for part in splits[:3]]
    assert found == [[1], [1], [2]]


def test_missing_data_are_not_downloaded(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not in .*mnist.*`download=True`"):
        tfds_splits("mnist", 4, folder=tmp_path)
    with pytest.raises(FileNotFoundError, match="Put ModelNet40.zip"):
        tfds_splits("modelnet40/meshes", 4, folder=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no .*ModelNet40.zip. Download https"):
        tfds_splits("modelnet40/meshes", 4, folder=tmp_path, manual_folder=tmp_path)
    with pytest.raises(FileNotFoundError, match="archives of imagenet2012 must be in"):
        tfds_splits("imagenet2012", 4, folder=tmp_path, manual_folder=tmp_path)


def test_only_download_downloads(tmp_path, monkeypatch):
    asked = []

    def download_and_prepare(self, **options):
        asked.append((self.name, options["file_format"].value))
        raise RuntimeError("no need for more")

    monkeypatch.setattr(
        tfds.core.DatasetBuilder, "download_and_prepare", download_and_prepare
    )
    with pytest.raises(RuntimeError, match="no need"):
        tfds_splits("mnist", 4, folder=tmp_path, download=True)
    assert asked == [("mnist", "array_record")]


def test_another_format_names_the_command_that_converts(tmp_path, monkeypatch):
    accept_any_archive(monkeypatch)
    write_points_2048(tmp_path)
    builder = tfds.builder("modelnet40/points_2048", data_dir=tmp_path, try_gcs=False)
    builder.download_and_prepare(
        file_format="tfrecord",
        download_config=tfds.download.DownloadConfig(manual_dir=str(tmp_path)),
    )
    with pytest.raises(ValueError, match="tfds convert_format") as caught:
        _read(tmp_path)
    command = str(caught.value).split("`tfds ")[1].split("`")[0]
    assert f"--dataset_version_dir={builder.data_dir} " in command
    # The command needs apache-beam, so only its options are checked, in its source.
    source = (
        Path(tfds.__file__).parent / "scripts" / "cli" / "convert_format.py"
    ).read_text()
    for option in re.findall(r"--(\w+)=", command):
        assert f"  {option}: " in source


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 33}, r"must not exceed.*batch_size=33, 32 examples"),
        ({"batch_size": 0}, "`batch_size` must be a positive integer"),
        ({"num_processes": 3}, "must be divisible by `num_processes`"),
        ({"process_index": 1}, "`process_index` must be from 0"),
    ],
)
def test_bad_arguments(prepared, options, message):
    with pytest.raises(ValueError, match=message):
        _read(prepared, **options)


def test_dataset_without_supervised_keys_needs_prepare():
    example = {"name": "", "audio": np.zeros(4, "int16"), "labels": [3]}
    with pytest.raises(ValueError, match="audioset does not define.*Pass a `prepare`"):
        tfds_splits("audioset/all", 1, mock=lambda rng: example)
