"""What a trained model is worth: scores, confusion, calibration, class by class."""

import csv
import json
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_perceiver._files import replace_file
from keras_perceiver._matplotlib import matplotlib
from keras_perceiver.distribution import predict_on_batch

_NUM_BINS = 15


class Evaluation(NamedTuple):
    """What a model says of a data set, and what is true.

    Attributes:
        labels: Integer array `(num_examples,)`, or, with many labels an example, array
            `(num_examples, num_classes)` of 0 and 1.
        logits: Float array `(num_examples, num_classes)`.
        class_names: Tuple of strings.
    """

    labels: np.ndarray
    logits: np.ndarray
    class_names: tuple

    @property
    def is_multi_label(self):
        return self.labels.ndim == 2

    @property
    def probabilities(self):
        """Array `(num_examples, num_classes)`."""
        return _probabilities(self.logits, self.is_multi_label)

    def metrics(self):
        """Returns a dict of the scores of the whole.

        `accuracy` and `top_5_accuracy`, or `mean_average_precision` over the classes
        that have examples; and `expected_calibration_error`, how far probabilities are
        from frequencies ([Guo et al., 2017](https://arxiv.org/abs/1706.04599)).
        """
        if self.is_multi_label:
            precisions = average_precisions(self.labels, self.logits)
            scores = {"mean_average_precision": float(np.nanmean(precisions))}
        else:
            scores = {
                "accuracy": top_accuracy(self.labels, self.logits, 1),
                "top_5_accuracy": top_accuracy(self.labels, self.logits, 5),
            }
        parts, confidence, frequency = self.calibration()
        error = float(np.sum(parts * np.abs(confidence - frequency)))
        return {**scores, "expected_calibration_error": error}

    def confusion(self):
        """Returns the integer array of examples by true and found class."""
        size = len(self.class_names)
        pairs = self.labels * size + np.argmax(self.logits, axis=1)
        return np.bincount(pairs, minlength=size**2).reshape(size, size)

    def calibration(self):
        """Returns parts of the examples, mean probabilities and frequencies of being
        right, one of each for every bin of probabilities that is not empty.

        Of the class with the largest probability, or of every class with many labels.
        """
        probabilities = self.probabilities
        if self.is_multi_label:
            confidence, is_right = probabilities.ravel(), self.labels.ravel()
        else:
            confidence = probabilities.max(axis=1)
            is_right = np.argmax(self.logits, axis=1) == self.labels
        bins = np.minimum((confidence * _NUM_BINS).astype(int), _NUM_BINS - 1)
        counts = np.bincount(bins, minlength=_NUM_BINS)
        is_used = counts > 0
        sums = [
            np.bincount(bins, weights, _NUM_BINS)[is_used] / counts[is_used]
            for weights in (confidence, is_right)
        ]
        return counts[is_used] / len(bins), *sums

    def classes(self):
        """Returns a list of dicts, one a class: its examples and scores.

        A score that is not defined, such as the precision of a class that was never
        found, is `None`.
        """
        if self.is_multi_label:
            columns = {
                "examples": self.labels.sum(axis=0).astype(int),
                "average_precision": average_precisions(self.labels, self.logits),
            }
        else:
            confusion = self.confusion()
            right = np.diag(confusion)
            examples, found = confusion.sum(axis=1), confusion.sum(axis=0)
            columns = {
                "examples": examples,
                "recall": _ratio(right, examples),
                "precision": _ratio(right, found),
                "f1": _ratio(2 * right, examples + found),
            }
        return [
            {
                "class": name,
                **{
                    column: None if np.isnan(values[i]) else values[i].item()
                    for column, values in columns.items()
                },
            }
            for i, name in enumerate(self.class_names)
        ]

    def table(self):
        """Returns the table of all classes, in Markdown."""
        rows = self.classes()
        lines = [[*rows[0]], ["---"] * len(rows[0])]
        lines += [[_text(value) for value in row.values()] for row in rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def write(self, folder):
        """Writes metrics, table and plots to a folder.

        `evaluation.json`, `classes.csv`, `calibration.png` and, with one label an
        example, `confusion.png`.

        Raises:
            ImportError: if matplotlib is not installed.
        """
        folder = Path(folder)
        plt = matplotlib("pyplot")
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.metrics(), indent=2) + "\n"
        replace_file(folder / "evaluation.json", lambda path: path.write_text(text))
        replace_file(folder / "classes.csv", self._write_classes)
        replace_file(
            folder / "calibration.png", lambda path: self._plot_calibration(plt, path)
        )
        if not self.is_multi_label:
            replace_file(
                folder / "confusion.png", lambda path: self._plot_confusion(plt, path)
            )

    def _write_classes(self, path):
        rows = self.classes()
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0]])
            writer.writeheader()
            writer.writerows(rows)

    def _plot_calibration(self, plt, path):
        parts, confidence, frequency = self.calibration()
        error = self.metrics()["expected_calibration_error"]
        figure, axes = plt.subplots(
            *(2, 1),
            figsize=(5, 6),
            height_ratios=(3, 1),
            sharex=True,
            layout="constrained",
        )
        axes[0].plot([0, 1], [0, 1], color="grey", linestyle=":", label="calibrated")
        axes[0].plot(confidence, frequency, marker="o", label=f"error {error:.4f}")
        axes[0].set(ylabel="frequency", xlim=(0, 1), ylim=(0, 1))
        axes[0].legend()
        axes[1].bar(confidence, parts, width=0.8 / _NUM_BINS)
        axes[1].set(xlabel="probability", ylabel="part of all")
        figure.savefig(path, dpi=120)
        plt.close(figure)

    def _plot_confusion(self, plt, path):
        confusion = self.confusion()
        size = len(self.class_names)
        parts = _ratio(confusion, confusion.sum(axis=1, keepdims=True))
        side = min(4 + 0.3 * size, 14)
        figure, axis = plt.subplots(figsize=(side, side), layout="constrained")
        image = axis.imshow(parts, cmap="Blues", vmin=0, vmax=1)
        figure.colorbar(image, label="part of the true class", shrink=0.7)
        if size <= 40:  # more names than this cannot be read
            axis.set_xticks(range(size), self.class_names, rotation=90)
            axis.set_yticks(range(size), self.class_names)
        axis.set(xlabel="found", ylabel="true")
        figure.savefig(path, dpi=120)
        plt.close(figure)


def evaluate(model, dataset, class_names, is_multi_label=False):
    """Has a model say what it makes of a data set.

    An example may be several clips: inputs with one axis more than the model reads,
    after the batch axis. Their probabilities are averaged.

    Args:
        model: `keras.Model` that returns logits.
        dataset: `tf.data.Dataset` of batches `(inputs, labels)`. Labels are indices of
            classes, or have one number a class: parts, of which the largest counts, or,
            with many labels an example, 0 and 1.
        class_names: Sequence of strings, one a class.
        is_multi_label: Boolean, whether an example has any number of labels.

    Returns:
        `Evaluation`.

    Raises:
        ValueError: if the model has another number of classes than there are names.
    """
    num_classes = model.output_shape[-1]
    if num_classes != len(class_names):
        raise ValueError(
            "The data must have the classes of the model. Received: "
            f"{len(class_names)} class names and a model of {num_classes} classes. Choose "
            "the recipe and the data that the model was trained with."
        )
    labels, logits = [], []
    for batch_inputs, batch_labels in dataset.as_numpy_iterator():
        labels.append(batch_labels)
        logits.append(_logits(model, batch_inputs, is_multi_label))
    labels, logits = np.concatenate(labels), np.concatenate(logits)
    if not is_multi_label:
        is_index = labels.ndim == 1 or labels.shape[1] == 1
        labels = labels.reshape(-1) if is_index else labels.argmax(axis=1)
    return Evaluation(labels, logits, tuple(class_names))


def has_clips(model, inputs):
    """Tells whether the examples of a batch, or of its spec, are several clips each."""
    wanted = model.input
    if isinstance(wanted, dict):
        name = next(iter(wanted))
        wanted, inputs = wanted[name], inputs[name]
    return len(inputs.shape) == len(wanted.shape) + 1


def _logits(model, inputs, is_multi_label):
    if not has_clips(model, inputs):
        return predict_on_batch(model, inputs)
    num_clips = keras.tree.flatten(inputs)[0].shape[1]
    total = 0
    for i in range(num_clips):  # one at a time: the memory of one
        clip = keras.tree.map_structure(lambda x: x[:, i], inputs)  # noqa: B023
        logits = predict_on_batch(model, clip)
        total = total + _probabilities(logits, is_multi_label)
    mean = np.clip(total / num_clips, 1e-30, 1 - 1e-12)
    return np.log(mean) - (np.log1p(-mean) if is_multi_label else 0)


def _probabilities(logits, is_multi_label):
    logits = logits.astype("float64")
    if is_multi_label:
        return 0.5 * (1 + np.tanh(logits / 2))  # the sigmoid, without overflow
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def top_accuracy(labels, scores, num):
    """Returns the part of the examples whose label is among the best `num` classes.

    Args:
        labels: Integer array `(num_examples,)`.
        scores: Array `(num_examples, num_classes)`.
        num: Integer. Of equal scores, the class that comes first is the better.
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :num]
    return float(np.mean(np.any(best == labels[:, None], axis=1)))


def average_precisions(targets, scores):
    """Returns the average precision of every class, NaN without a positive example.

    The sum over thresholds of precision times gain in recall, without interpolation: what
    scikit-learn's `average_precision_score` gives.

    Args:
        targets: Array `(num_examples, num_classes)` of 0 and 1.
        scores: Array `(num_examples, num_classes)`.
    """
    found = np.full(targets.shape[1], np.nan)
    for i in np.flatnonzero(targets.any(axis=0)):
        order = np.argsort(-scores[:, i], kind="stable")
        ordered = scores[order, i]
        # Equal scores are found together: only the last of them is a threshold.
        is_last = np.append(ordered[1:] != ordered[:-1], True)
        positives = np.cumsum(targets[order, i] > 0)[is_last]
        precision = positives / (np.flatnonzero(is_last) + 1)
        gain = np.diff(positives, prepend=0) / positives[-1]
        found[i] = np.sum(precision * gain)
    return found


def _ratio(part, whole):
    """Returns `part / whole`, NaN where both are 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, float), whole)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _text(value):
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
