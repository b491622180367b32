"""Evaluation of a task on a dataset, and its report."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_perceiver._files import replace_file
from keras_perceiver._names import in_csv, in_markdown
from keras_perceiver.distribution import predict_on_batch
from keras_perceiver.training.plots import draw_report

if TYPE_CHECKING:
    import tensorflow as tf

    from keras_perceiver._typing import PathLike
    from keras_perceiver.models import Task
    from keras_perceiver.models.reports import Report


def evaluate(model: Task, dataset: tf.data.Dataset) -> Report:
    """Returns the report of a task on a dataset, see `predictions`.

    Args:
        model: Task, such as `PerceiverClassifier`.
        dataset: `tf.data.Dataset` of batches `(inputs, targets)`.

    Returns:
        Report of the task, see `keras_perceiver.models.reports`.
    """
    return model.report(*predictions(model, dataset))


def predictions(model, dataset):
    """Returns the targets of a dataset, and the predictions of a task for it.

    Examples may consist of several clips: inputs then have an additional axis after the
    batch axis. The predictions of clips are averaged as the task defines it.

    Args:
        model: Task, such as `PerceiverClassifier`.
        dataset: `tf.data.Dataset` of batches `(inputs, targets)`.

    Returns:
        Pair of NumPy arrays.
    """
    y_true, y_pred = [], []
    for inputs, targets in dataset.as_numpy_iterator():
        y_true.append(targets)
        y_pred.append(_predict(model, inputs))
    return np.concatenate(y_true), np.concatenate(y_pred)


def check_class_names(model, class_names):
    """Raises `ValueError` unless the data have the classes of a model.

    Args:
        model: Task. If its class names are `None`, they are set to those of the data.
        class_names: Sequence of strings, the classes of the data.
    """
    if model.class_names is None:
        model.class_names = class_names
    elif list(model.class_names) != list(class_names):
        raise ValueError(
            "The data must have the classes of the model. Received: "
            f"{list(class_names)[:20]} for a model of {list(model.class_names)[:20]}. "
            "Choose the recipe and the data that the model was trained with."
        )


def has_clips(model, inputs):
    """Returns whether the examples of a batch, or of its spec, have several clips."""
    wanted = model.input
    if isinstance(wanted, dict):
        name = next(iter(wanted))
        wanted, inputs = wanted[name], inputs[name]
    return len(inputs.shape) == len(wanted.shape) + 1


def _predict(model, inputs):
    if not has_clips(model, inputs):
        return predict_on_batch(model, inputs)
    num_clips = keras.tree.flatten(inputs)[0].shape[1]
    predictions = []
    for i in range(num_clips):  # one at a time, to save memory
        clip = keras.tree.map_structure(lambda x: x[:, i], inputs)  # noqa: B023
        predictions.append(predict_on_batch(model, clip))
    return model.mean_prediction(predictions)


def table(report):
    """Returns the rows of a report as a Markdown table."""
    rows = report.rows()
    lines = [[*rows[0]], ["---"] * len(rows[0])]
    lines += [[_text(value) for value in row.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_report(report: Report, folder: PathLike) -> None:
    """Writes metrics, table and figures of a report to a folder.

    The files are `evaluation.json`, a table such as `classes.csv`, and one PNG per figure.

    Args:
        report: Report of a task.
        folder: Path of a folder, which is created if it is missing.

    Raises:
        ImportError: if Matplotlib is not installed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report.metrics(), indent=2) + "\n"
    replace_file(folder / "evaluation.json", lambda path: path.write_text(text))
    table_file = folder / f"{report.table_name}.csv"
    replace_file(table_file, lambda path: _write_rows(report, path))
    for name, figure in report.figures().items():
        replace_file(
            folder / f"{name}.png",
            lambda path, figure=figure: draw_report(figure).savefig(path, dpi=120),
        )


def _write_rows(report, path):
    rows = report.rows()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        for row in rows:
            texts = {k: in_csv(x) for k, x in row.items() if isinstance(x, str)}
            writer.writerow({**row, **texts})


def _text(value):
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else in_markdown(str(value))
