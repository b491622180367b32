import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_perceiver import ImagePreprocessor, data

pytestmark = pytest.mark.one_backend

SHAPES = {
    "cifar10": ((32, 32, 3), 10),
    "fashion_mnist": ((28, 28, 1), 10),
    "mnist": ((28, 28, 1), 10),
    "modelnet40": ((2048, 3), 40),
    "speech_commands": ((16_000,), 12),
}


@pytest.mark.parametrize("name", SHAPES)
def test_small_data_sets(name):
    splits = getattr(data, name)(4, mock=True)
    shape, num_classes = SHAPES[name]
    assert len(splits.class_names) == num_classes
    for part in splits[:3]:
        assert len(part) == 2
        for inputs, labels in part:
            assert inputs.shape == (4, *shape)
            assert inputs.dtype == "float32"
            assert np.isfinite(inputs).all()
            assert -1 <= np.min(inputs) < -0.05
            assert 0.05 < np.max(inputs) <= 1
            assert labels.dtype == "int32"
            assert 0 <= np.min(labels) <= np.max(labels) < num_classes


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_images_are_unchanged_without_augmentation(name):
    for options, are_levels in (({"use_augmentation": False}, True), ({}, False)):
        splits = getattr(data, name)(8, mock=True, **options)
        levels = (next(iter(splits.train))[0].numpy() + 1) * 127.5
        assert (np.abs(levels - levels.round()).max() < 1e-3) == are_levels


@pytest.mark.parametrize("name", ["cifar10", "mnist", "imagenet"])
def test_inputs_are_those_of_the_preprocessor(name):
    default = getattr(data, name)(4, mock=True).preprocessor
    assert default.value_range == (-1, 1)
    preprocessor = ImagePreprocessor(default.shape, value_range=(0, 255))
    splits = getattr(data, name)(4, mock=True, preprocessor=preprocessor)
    assert splits.preprocessor is preprocessor
    images, _ = next(iter(splits.test))
    assert np.min(images) >= 0
    assert 100 < np.max(images) <= 255
    images, _ = next(iter(splits.train))
    assert np.min(images) >= 0
    assert 100 < np.max(images) <= 255


def test_points_are_scaled():
    splits = data.modelnet40(8, mock=True, scale=0.0)
    key = tf.argsort(next(iter(splits.epoch(0)))[1])  # in any order
    plain = tf.gather(next(iter(splits.epoch(0)))[0], key)
    scaled = data.modelnet40(8, mock=True, scale=0.01).epoch(0)
    scaled = tf.gather(next(iter(scaled))[0], key)
    ratio = np.linalg.norm(scaled, axis=-1) / np.linalg.norm(plain, axis=-1)
    assert 0.003 < ratio.std() < 0.03


@pytest.mark.parametrize(
    ("options", "is_mixed"),
    [
        ({}, True),
        ({"num_ops": 0, "mixup_alpha": 0}, True),
        ({"num_ops": 0, "use_cutmix": False}, True),
        ({"num_ops": 0, "mixup_alpha": 0, "use_cutmix": False}, False),
    ],
)
def test_imagenet(options, is_mixed):
    splits = data.imagenet(8, mock=True, **options)
    assert len(splits.class_names) == 1000
    images, labels = next(iter(splits.epoch(1)))
    assert images.shape == (8, 224, 224, 3)
    assert np.abs(images).max() <= 1
    (test_images, test_labels) = next(iter(splits.test))
    assert test_images.shape == (8, 224, 224, 3)
    if is_mixed:
        np.testing.assert_allclose(np.sum(labels, axis=1), 1, atol=1e-5)
        assert (np.sum(labels > 0, axis=1) == 2).any()
        assert (np.sum(test_labels > 0, axis=1) == 1).all()
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        assert labels.shape == test_labels.shape == (8, 1000)
    else:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        assert labels.shape == test_labels.shape == (8,)
    # Their losses for equal logits.
    logits = np.zeros((8, 1000), "float32")
    for some_labels in (labels, test_labels):
        value = float(loss(some_labels.numpy(), logits))
        assert value == pytest.approx(np.log(1000), rel=1e-4)


@pytest.mark.slow
def test_audioset():
    splits = data.audioset(1, mock=True, num_test_clips=2)
    for part, clips in zip(splits[:3], [(), (), (2,)], strict=True):
        inputs, labels = next(iter(part))
        assert {name: tuple(x.shape) for name, x in inputs.items()} == {
            "audio": (1, *clips, 61_440),
            "video": (1, *clips, 32, 224, 224, 3),
        }
        assert labels.shape == (1, 527)
        assert set(np.unique(labels)) == {0, 1}
        assert all(np.abs(x).max() <= 1 for x in inputs.values())
    with pytest.raises(ValueError, match="`modalities` must be of 'audio' and 'video'"):
        data.audioset(2, mock=True, modalities=("text",))
