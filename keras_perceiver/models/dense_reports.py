"""Evaluation of predictions for every point of a grid."""

import dataclasses
from typing import NamedTuple

import numpy as np

from keras_perceiver.models.reports import ClassificationReport, ratio, top_accuracy

_NUM_BINS = 40
_NUM_MAPS = 6  # examples that are drawn


class Agreement(NamedTuple):
    """Counts of values by true and predicted value, in bins of equal width.

    Attributes:
        counts: Integer array `(num_channels, num_bins, num_bins)`, first the true value.
        edges: Array `(num_channels, num_bins + 1)`, the edges of the bins.
        r2: Array `(num_channels,)`, the coefficient of determination.
    """

    counts: np.ndarray
    edges: np.ndarray
    r2: np.ndarray


class Maps(NamedTuple):
    """Targets and predictions of the first examples, on a grid with two axes.

    Attributes:
        targets: Array `(num_examples, height, width)`, values or class indices.
        predictions: Array of the same shape.
        class_names: Tuple of strings, or `None` for values.
        ignore_class: Integer, the target that does not count, or `None`.
    """

    targets: np.ndarray
    predictions: np.ndarray
    class_names: tuple | None = None
    ignore_class: int | None = None


@dataclasses.dataclass(frozen=True)
class SegmentationReport(ClassificationReport):
    """The evaluation of a class for every point of a grid; every point counts.

    Attributes:
        targets: Array of the targets of all points that count.
        logits: Float array `(num_points, num_classes)`.
        class_names: Tuple of strings.
        maps: `Maps` of the first examples, `None` unless the grid has two axes.
    """

    maps: Maps | None = None
    _calibration_labels = ("accuracy", "points")

    @classmethod
    def of(cls, y_true, y_pred, class_names, ignore_class=None):
        """Creates the report of class indices `(..., *grid)` and logits, one axis more."""
        labels = y_true.reshape(-1)
        is_kept = (
            np.ones(len(labels), bool)
            if ignore_class is None
            else labels != ignore_class
        )
        logits = y_pred.reshape(-1, y_pred.shape[-1])[is_kept]
        names, maps = tuple(class_names), None
        if y_true.ndim == 3:
            first = y_pred[:_NUM_MAPS].argmax(axis=-1)
            maps = Maps(y_true[:_NUM_MAPS], first, names, ignore_class)
        return cls(labels[is_kept].astype("int64"), logits, names, maps)

    def figures(self):
        maps = {} if self.maps is None else {"examples": self.maps}
        return {**super().figures(), **maps}

    def metrics(self):
        """Returns a dict of `mean_iou`, `accuracy`, `expected_calibration_error`.

        The mean of intersection over union is over the classes that occur.
        """
        return {
            "mean_iou": float(np.nanmean(self._intersection_over_union())),
            "accuracy": top_accuracy(self.targets, self.logits, 1),
            "expected_calibration_error": self.calibration().error,
        }

    def _intersection_over_union(self):
        confusion = self.confusion()
        right = np.diag(confusion)
        return ratio(right, confusion.sum(axis=1) + confusion.sum(axis=0) - right)

    def _columns(self):
        return {**super()._columns(), "iou": self._intersection_over_union()}


@dataclasses.dataclass(frozen=True)
class RegressionReport:
    """The evaluation of values for every point of a grid.

    Attributes:
        targets: Array `(num_examples, *grid, num_channels)`.
        values: Array of the same shape, the predictions.
        table_name: String, what the rows of the table are.
    """

    targets: np.ndarray
    values: np.ndarray
    table_name = "channels"

    def metrics(self):
        """Returns a dict of `r2`, `mean_squared_error` and `mean_absolute_error`."""
        columns = self._columns()
        return {name: float(np.mean(values)) for name, values in columns.items()}

    def rows(self):
        """Returns a list of dicts, one per channel: its metrics."""
        columns = self._columns()
        return [
            {
                "channel": i,
                **{name: values[i].item() for name, values in columns.items()},
            }
            for i in range(self.targets.shape[-1])
        ]

    def figures(self):
        """Returns a dict from names of figures to their data."""
        figures = {"agreement": self.agreement()}
        if self.targets.ndim == 4:
            figures["examples"] = Maps(
                self.targets[:_NUM_MAPS, ..., 0], self.values[:_NUM_MAPS, ..., 0]
            )
        return figures

    def agreement(self):
        """Returns the `Agreement` of targets and predictions."""
        channels = [
            np.stack([x[..., i].ravel() for x in (self.targets, self.values)])
            for i in range(self.targets.shape[-1])
        ]
        edges = [np.histogram_bin_edges(pairs, _NUM_BINS) for pairs in channels]
        counts = [
            np.histogram2d(*pairs, bins=[e, e])[0].astype(int)
            for pairs, e in zip(channels, edges, strict=True)
        ]
        return Agreement(np.stack(counts), np.stack(edges), self._columns()["r2"])

    def _columns(self):
        targets = self.targets.reshape(-1, self.targets.shape[-1]).astype("float64")
        errors = self.values.reshape(targets.shape) - targets
        squares = np.mean(errors**2, axis=0)
        return {
            "r2": 1 - squares / np.var(targets, axis=0),
            "mean_squared_error": squares,
            "mean_absolute_error": np.mean(np.abs(errors), axis=0),
        }
