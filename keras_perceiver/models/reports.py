"""Evaluation of predictions: metrics, tables and data for figures."""

import dataclasses
from typing import NamedTuple

import numpy as np

from keras_perceiver._checks import not_defined

_NUM_BINS = 15


class Calibration(NamedTuple):
    """Calibration of predicted probabilities, in bins of equal width.

    Attributes:
        counts: Integer array `(num_bins,)`, the number of predictions in each bin.
        confidence: Array `(num_bins,)`, their mean probability.
        frequency: Array `(num_bins,)`, the fraction that is correct.
        frequency_label: String, name of `frequency`, such as `"accuracy"`.
        unit: String, name of the predictions, such as `"examples"`.
    """

    counts: np.ndarray
    confidence: np.ndarray
    frequency: np.ndarray
    frequency_label: str = "accuracy"
    unit: str = "examples"

    @property
    def share(self):
        """Array `(num_bins,)`, the share of all predictions in each bin."""
        return self.counts / self.counts.sum()

    @property
    def error(self):
        """Float, the expected calibration error."""
        return float(np.sum(self.share * np.abs(self.confidence - self.frequency)))


class Confusion(NamedTuple):
    """Counts of examples by true and predicted class.

    Attributes:
        counts: Integer array `(num_classes, num_classes)`.
        class_names: Tuple of strings.
    """

    counts: np.ndarray
    class_names: tuple


@dataclasses.dataclass(frozen=True)
class Report:
    """The predictions of a classifier for a dataset, and the targets.

    Attributes:
        targets: Array of the targets of all examples.
        logits: Float array `(num_examples, num_classes)`.
        class_names: Tuple of strings.
        table_name: String, what the rows of the table are.
    """

    targets: np.ndarray
    logits: np.ndarray
    class_names: tuple
    table_name = "classes"
    _calibration_labels = ("accuracy", "examples")

    def metrics(self):
        """Returns a dict of metrics over all examples."""
        raise not_defined(self, "a report", "metrics", "a dict of metrics")

    def rows(self):
        """Returns a list of dicts with the number of examples and the metrics per class.

        Undefined metrics, such as the precision of a class that was never predicted, are
        `None`.
        """
        return [
            {
                "class": name,
                **{
                    column: None if np.isnan(values[i]) else values[i].item()
                    for column, values in self._columns().items()
                },
            }
            for i, name in enumerate(self.class_names)
        ]

    def figures(self):
        """Returns a dict from figure names to their data."""
        return {"calibration": self.calibration()}

    def calibration(self):
        """Returns the `Calibration` of the predicted probabilities."""
        confidence, is_right = self._confidence()
        bins = np.minimum((confidence * _NUM_BINS).astype(int), _NUM_BINS - 1)
        counts = np.bincount(bins, minlength=_NUM_BINS)
        is_used = counts > 0
        means = [
            np.bincount(bins, weights, _NUM_BINS)[is_used] / counts[is_used]
            for weights in (confidence, is_right)
        ]
        return Calibration(counts[is_used], *means, *self._calibration_labels)


class ClassificationReport(Report):
    """Evaluation of a classifier with one label per example."""

    @classmethod
    def of(cls, y_true, y_pred, class_names):
        """Creates a report from class indices or soft labels, and logits."""
        if y_pred.shape[-1] == 1:  # the log-odds of class 1 against class 0
            y_pred = np.concatenate([np.zeros_like(y_pred), y_pred], axis=-1)
        is_index = y_true.ndim == 1 or y_true.shape[1] == 1
        labels = y_true.reshape(-1) if is_index else y_true.argmax(axis=1)
        return cls(labels.astype("int64"), y_pred, tuple(class_names))

    @property
    def probabilities(self):
        """Array `(num_examples, num_classes)`."""
        return softmax(self.logits)

    def metrics(self):
        """Returns a dict of `accuracy`, `top_5_accuracy`, `expected_calibration_error`.

        The last one measures the difference between probabilities and frequencies ([Guo
        et al., 2017](https://arxiv.org/abs/1706.04599)).
        """
        return {
            "accuracy": top_accuracy(self.targets, self.logits, 1),
            "top_5_accuracy": top_accuracy(self.targets, self.logits, 5),
            "expected_calibration_error": self.calibration().error,
        }

    def figures(self):
        confusion = Confusion(self.confusion(), self.class_names)
        return {**super().figures(), "confusion": confusion}

    def confusion(self):
        """Returns the counts of examples by true and predicted class."""
        size = len(self.class_names)
        pairs = self.targets * size + np.argmax(self.logits, axis=1)
        return np.bincount(pairs, minlength=size**2).reshape(size, size)

    def _confidence(self):
        is_right = np.argmax(self.logits, axis=1) == self.targets
        return self.probabilities.max(axis=1), is_right

    def _columns(self):
        confusion = self.confusion()
        right = np.diag(confusion)
        examples, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
        return {
            "examples": examples,
            "recall": ratio(right, examples),
            "precision": ratio(right, predicted),
            "f1": ratio(2 * right, examples + predicted),
        }


class MultiLabelReport(Report):
    """Evaluation of a classifier with any number of labels per example."""

    _calibration_labels = ("share of positive labels", "labels")

    @classmethod
    def of(cls, y_true, y_pred, class_names):
        """Creates a report from targets of 0 and 1, and logits."""
        return cls(y_true, y_pred, tuple(class_names))

    @property
    def probabilities(self):
        """Array `(num_examples, num_classes)`."""
        return sigmoid(self.logits)

    def metrics(self):
        """Returns a dict of `mean_average_precision`, `expected_calibration_error`.

        The mean is over the classes with examples.
        """
        precisions = average_precisions(self.targets, self.logits)
        return {
            "mean_average_precision": float(np.nanmean(precisions)),
            "expected_calibration_error": self.calibration().error,
        }

    def _confidence(self):
        return self.probabilities.ravel(), self.targets.ravel()

    def _columns(self):
        return {
            "examples": self.targets.sum(axis=0).astype(int),
            "average_precision": average_precisions(self.targets, self.logits),
        }


def top_accuracy(labels, scores, num):
    """Returns the fraction of examples whose label is among the top `num` classes.

    Args:
        labels: Integer array `(num_examples,)`.
        scores: Array `(num_examples, num_classes)`.
        num: Integer, number of classes. Ties are broken by the order of the classes.
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :num]
    return float(np.mean(np.any(best == labels[:, None], axis=1)))


def average_precisions(targets, scores):
    """Returns the average precision per class, NaN for classes without examples.

    It is the sum over thresholds of precision times the increase in recall, without
    interpolation, as in scikit-learn's `average_precision_score`.

    Args:
        targets: Array `(num_examples, num_classes)` of 0 and 1.
        scores: Array `(num_examples, num_classes)`.
    """
    found = np.full(targets.shape[1], np.nan)
    for i in np.flatnonzero(targets.any(axis=0)):
        order = np.argsort(-scores[:, i], kind="stable")
        ordered = scores[order, i]
        # Equal scores share a threshold, so only the last of them counts.
        is_last = np.append(ordered[1:] != ordered[:-1], True)
        positives = np.cumsum(targets[order, i] > 0)[is_last]
        precision = positives / (np.flatnonzero(is_last) + 1)
        gain = np.diff(positives, prepend=0) / positives[-1]
        found[i] = np.sum(precision * gain)
    return found


def softmax(logits):
    """Returns the softmax over the last axis in float64."""
    logits = np.asarray(logits, "float64")
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def sigmoid(logits):
    """Returns the sigmoid in float64 without overflow."""
    return 0.5 * (1 + np.tanh(np.asarray(logits, "float64") / 2))


def mean_of_softmax(logits):
    """Returns logits whose softmax is the mean softmax of several arrays of logits."""
    return np.log(_mean([softmax(x) for x in logits]))


def mean_of_sigmoid(logits):
    """Returns logits whose sigmoid is the mean sigmoid of several arrays of logits."""
    mean = _mean([sigmoid(x) for x in logits])
    return np.log(mean) - np.log1p(-mean)


def _mean(probabilities):
    return np.clip(sum(probabilities) / len(probabilities), 1e-30, 1 - 1e-12)


def ratio(part, whole):
    """Returns `part / whole`, NaN if both are 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, float), whole)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
