import keras
import numpy as np
import pytest

from keras_perceiver import SmoothedCrossentropy


def _reference(labels, logits, label_smoothing):
    logits = logits.astype("float64")
    log_softmax = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    classes = logits.shape[-1]
    targets = np.full(logits.shape, label_smoothing / classes)
    targets[np.arange(len(labels)), labels] += 1 - label_smoothing
    return -(targets * log_softmax).sum(axis=-1)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_equals_the_float64_reference(label_smoothing):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 5)).astype("float32") * 3
    labels = np.array([0, 1, 2, 3, 4, 4], "int32")
    expected = _reference(labels, logits, label_smoothing)
    loss = SmoothedCrossentropy(label_smoothing)
    assert float(loss(labels, logits)) == pytest.approx(expected.mean(), abs=1e-6)
    # The shape that Keras passes labels of a dataset in.
    assert float(loss(labels[:, None], logits)) == pytest.approx(expected.mean())
    weights = np.array([1, 0, 0, 2, 0, 0], "float32")
    weighted = float(loss(labels, logits, sample_weight=weights))
    assert weighted == pytest.approx((expected * weights).sum() / 6, abs=1e-6)


def test_config_round_trip():
    loss = SmoothedCrossentropy(0.2, reduction="sum")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is SmoothedCrossentropy
    assert again.get_config() == loss.get_config()
    labels, logits = np.array([1]), np.array([[0.5, 2.0, -1.0]], "float32")
    assert float(again(labels, logits)) == float(loss(labels, logits))


@pytest.mark.parametrize("label_smoothing", [-0.1, 1.0, "much"])
def test_bad_label_smoothing(label_smoothing):
    with pytest.raises(ValueError, match=r"`label_smoothing` must be a number in \[0"):
        SmoothedCrossentropy(label_smoothing)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_soft_labels(label_smoothing):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 5)).astype("float32") * 3
    first, second = rng.integers(0, 5, (2, 6))
    soft = 0.3 * np.eye(5)[first] + 0.7 * np.eye(5)[second]
    expected = sum(
        part * _reference(labels, logits, label_smoothing).mean()
        for part, labels in ((0.3, first), (0.7, second))
    )
    loss = SmoothedCrossentropy(label_smoothing)
    assert float(loss(soft.astype("float32"), logits)) == pytest.approx(expected)
    whole = np.eye(5, dtype="float32")[first]
    assert float(loss(whole, logits)) == pytest.approx(float(loss(first, logits)))
