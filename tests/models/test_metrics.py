import keras
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from keras_perceiver.models import Accuracy, MeanAveragePrecision, MeanIoU


def test_accuracy_takes_indices_and_soft_labels():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 5)).astype("float32")
    labels = rng.integers(0, 5, 50)
    soft = 0.6 * np.eye(5)[labels] + 0.4 * np.eye(5)[rng.integers(0, 5, 50)]
    expected = np.mean(logits.argmax(axis=1) == labels)
    for y_true in (labels, labels[:, None], soft.astype("float32")):
        metric = Accuracy()
        metric.update_state(y_true[:20], logits[:20])
        metric.update_state(y_true[20:], logits[20:])
        assert float(metric.result()) == pytest.approx(expected)
    again = keras.metrics.deserialize(keras.metrics.serialize(Accuracy("right")))
    assert (type(again), again.name) == (Accuracy, "right")


def test_accuracy_leaves_a_class_out():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 3, 2, 5)).astype("float32")
    labels, weights = rng.integers(0, 5, (4, 3, 2)), np.arange(4.0)
    labels[0, 0] = labels[3, 1] = 255
    is_right, counted = logits.argmax(axis=-1) == labels, labels != 255
    for sample_weight, expected in (
        (None, is_right[counted].mean()),
        (weights, np.average(is_right, weights=weights[:, None, None] * counted)),
    ):
        metric = Accuracy(ignore_class=255)
        for y_true in (labels, labels[..., None]):
            metric.update_state(y_true, logits, sample_weight)
        assert float(metric.result()) == pytest.approx(expected, rel=1e-5)
    again = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert again.ignore_class == 255


def test_mean_iou_is_weighted():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 3, 2, 5)).astype("float32")
    labels, found = rng.integers(0, 5, (4, 3, 2)), logits.argmax(axis=-1)
    labels[0, 0] = labels[3, 1] = 255
    counted, points = labels != 255, rng.random((4, 3, 2)).astype("float32")
    examples = np.linspace(0.1, 0.9, 4, dtype="float32")
    for sample_weight, weights in (
        (None, np.ones(labels.shape)),
        (points, points),
        (examples, np.broadcast_to(examples[:, None, None], labels.shape)),
    ):
        weights = np.where(counted, weights, 0)
        ratios = [
            weights[(labels == k) & (found == k)].sum()
            / weights[(labels == k) | (found == k)].sum()
            for k in range(5)
        ]
        metric = MeanIoU(5, ignore_class=255)
        for y_true in (labels, labels[..., None]):
            metric.update_state(y_true, logits, sample_weight)
        assert float(metric.result()) == pytest.approx(np.mean(ratios), rel=1e-5)
    again = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert again.get_config() == metric.get_config()


def test_mean_average_precision_is_near_the_exact_one():
    rng = np.random.default_rng(0)
    targets = (rng.random((3000, 3)) < [0.3, 0.1, 0.02]).astype("float32")
    # The probabilities of a rare class are all small.
    logits = rng.normal(size=(3000, 3)) + 1.5 * targets - [0, 4, 7]
    logits = logits.astype("float32")
    metric = MeanAveragePrecision(num_labels=3)
    for part in range(0, 3000, 1000):
        metric.update_state(targets[part : part + 1000], logits[part : part + 1000])
    exact = average_precision_score(targets, logits)
    assert float(metric.result()) == pytest.approx(exact, abs=0.01)
    again = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert again.get_config() == metric.get_config()
