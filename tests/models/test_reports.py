"""Reports of classifiers against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from keras_perceiver.models.reports import (
    ClassificationReport,
    MultiLabelReport,
    top_accuracy,
)

NAMES = tuple("abcdefg")


def single(num_examples=200):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, num_examples)  # without the last class
    logits = rng.normal(size=(num_examples, 7)) + 2 * np.eye(7)[labels]
    return ClassificationReport.of(labels, logits.astype("float32"), NAMES)


def multi(num_examples=200):
    rng = np.random.default_rng(0)
    labels = (rng.random((num_examples, 7)) < 0.2).astype("float32")
    labels[:, 6] = 0
    logits = np.round(rng.normal(size=labels.shape) + labels, 1)  # with many ties
    return MultiLabelReport.of(labels, logits.astype("float32"), NAMES)


@pytest.mark.one_backend
def test_single_label_scores_equal_sklearn():
    found = single()
    labels, scores = found.targets, found.probabilities
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    metrics = found.metrics()
    for name, k in (("accuracy", 1), ("top_5_accuracy", 5)):
        expected = sklearn_metrics.top_k_accuracy_score(
            labels, scores, k=k, labels=range(7)
        )
        assert metrics[name] == pytest.approx(expected)
    assert top_accuracy(labels, scores, 1) < top_accuracy(labels, scores, 5) < 1
    predicted = scores.argmax(axis=1)
    np.testing.assert_array_equal(
        found.confusion(),
        sklearn_metrics.confusion_matrix(labels, predicted, labels=range(7)),
    )
    expected = sklearn_metrics.precision_recall_fscore_support(
        labels, predicted, labels=range(6)
    )
    rows = found.rows()
    for name, values in zip(
        ("precision", "recall", "f1", "examples"), expected, strict=True
    ):
        np.testing.assert_allclose([row[name] for row in rows[:6]], values)
    assert rows[6]["recall"] is None
    assert rows[6]["examples"] == 0


@pytest.mark.one_backend
def test_multi_label_scores_equal_sklearn():
    found = multi()
    expected = sklearn_metrics.average_precision_score(
        found.targets[:, :6], found.logits[:, :6], average=None
    )
    rows = found.rows()
    np.testing.assert_allclose([row["average_precision"] for row in rows[:6]], expected)
    assert rows[6]["average_precision"] is None
    mean = found.metrics()["mean_average_precision"]
    assert mean == pytest.approx(expected.mean())
    np.testing.assert_allclose(
        found.probabilities, 1 / (1 + np.exp(-found.logits.astype("float64")))
    )


@pytest.mark.one_backend
def test_calibration():
    # Half of the predictions with a probability of 0.9 are correct, and all of those
    # with 0.6.
    probabilities = np.array([0.9] * 4 + [0.6] * 4)
    logits = np.log(np.stack([probabilities, 1 - probabilities], axis=1))
    labels = np.array([0, 0, 1, 1, 0, 0, 0, 0])
    found = ClassificationReport.of(labels, logits, ("yes", "no"))
    calibration = found.calibration()
    np.testing.assert_array_equal(calibration.counts, [4, 4])
    np.testing.assert_allclose(calibration.share, [0.5, 0.5])
    np.testing.assert_allclose(calibration.confidence, [0.6, 0.9])
    np.testing.assert_allclose(calibration.frequency, [1.0, 0.5])
    error = found.metrics()["expected_calibration_error"]
    assert error == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
    # The same for each class independently.
    log_odds = np.log(1 / (1 / probabilities - 1))
    logits = np.stack([log_odds, -log_odds], axis=1)
    many = MultiLabelReport.of(np.eye(2)[labels], logits, ("a", "b"))
    assert many.metrics()["expected_calibration_error"] == pytest.approx(0.4)


@pytest.mark.one_backend
def test_targets_of_one_label():
    logits = np.eye(3)
    labels = np.array([2, 0, 1])
    for y in (labels, labels[:, None], 0.8 * np.eye(3)[labels] + 0.2 / 3):
        found = ClassificationReport.of(y, logits, "abc").targets
        np.testing.assert_array_equal(found, labels)


@pytest.mark.one_backend
def test_one_logit_is_the_log_odds_of_class_1():
    log_odds = np.array([[-2.0], [1.0], [3.0]])
    found = ClassificationReport.of(np.array([0, 1, 0]), log_odds, ("no", "yes"))
    expected = 1 / (1 + np.exp(-log_odds[:, 0]))
    np.testing.assert_allclose(found.probabilities[:, 1], expected)
    assert found.metrics()["accuracy"] == pytest.approx(2 / 3)
    np.testing.assert_array_equal(found.confusion(), [[1, 1], [0, 1]])


@pytest.mark.one_backend
def test_figures_are_the_data_of_the_metrics():
    found = single().figures()
    assert set(found) == {"calibration", "confusion"}
    assert found["confusion"].counts.sum() == 200
    assert set(multi().figures()) == {"calibration"}
    error = multi().metrics()["expected_calibration_error"]
    assert multi().figures()["calibration"].error == error
