"""Tables and figures of the trials of a search."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_perceiver._files import replace_file
from keras_perceiver._matplotlib import matplotlib

if TYPE_CHECKING:
    from keras_perceiver._typing import PathLike

_MIN_FOR_IMPORTANCE = 6
# Columns of a trial other than its settings.
_TEXTS = ("trial", "status")
_MEASURES = (
    *("trial", "status", "score", "parameters", "GFLOPs", "seconds"),
    *("epochs", "after_epochs"),
)


def write_trials(rows: list[dict], path: PathLike) -> None:
    """Writes a table of trials as CSV, with unquoted strings.

    Args:
        rows: List of dicts, as `search` returns it.
        path: Path of the file.
    """

    def write(path):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows({k: _to_text(v) for k, v in row.items()} for row in rows)

    replace_file(Path(path), write)


def read_trials(path: PathLike) -> list[dict]:
    """Returns the table of trials from a file that `write_trials` has written."""
    with Path(path).open(newline="") as file:
        return [
            {name: _from_text(name, text) for name, text in row.items()}
            for row in csv.DictReader(file)
        ]


def _to_text(value):
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _from_text(name, text):
    if name in _TEXTS:
        return text
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text


def pareto_front(rows: list[dict], cost: str = "GFLOPs") -> list[dict]:
    """Returns the Pareto-optimal trials, sorted by cost.

    Args:
        rows: List of dicts, as `search` returns it.
        cost: String, the column to minimize.
    """
    front: list[dict] = []
    for row in sorted(_completed(rows), key=lambda row: (row[cost], -row["score"])):
        if not front or row["score"] > front[-1]["score"]:
            front.append(row)
    return front


def plot_trials(
    rows: list[dict], folder: PathLike, first: str | None = None
) -> list[Path]:
    """Plots the trials: scores against FLOPs, all settings, and their importance.

    It writes `front.png`, `parallel.png` and, for six trials or more, `importance.png`.

    Args:
        rows: List of dicts, as `search` returns it.
        folder: Path of a folder.
        first: String, the first trial, which is marked by a star, or `None`.

    Returns:
        List of the paths of the figures.

    Raises:
        ValueError: if no trial was completed.
        ImportError: if matplotlib or scikit-learn is not installed.
    """
    completed = _completed(rows)
    if not completed:
        raise ValueError(
            "There must be a completed trial to plot. Received: "
            f"{len(rows)} trials that are not. See their status."
        )
    folder = Path(folder)
    figures = {"front": _front(completed, first)}
    if free := _free_settings(completed):
        figures["parallel"] = _parallel(completed, free)
        if len(completed) >= _MIN_FOR_IMPORTANCE:
            figures["importance"] = _importance(completed, free)
    paths = []
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        replace_file(path, lambda path, figure=figure: figure.savefig(path, dpi=120))
        paths.append(path)
    return paths


def _completed(rows):
    return [row for row in rows if row["status"] == "COMPLETED"]


def _free_settings(rows):
    names = [name for name in rows[0] if name not in _MEASURES]
    return [name for name in names if len({row[name] for row in rows}) > 1]


def _front(rows, first):
    figure, axis = _figure(figsize=(7, 4.5))
    most = max(row["epochs"] + row["after_epochs"] for row in rows)
    groups = {"trial": [], "trial of fewer epochs": []}
    for row in rows:
        is_whole = row["epochs"] + row["after_epochs"] == most
        groups["trial" if is_whole else "trial of fewer epochs"].append(row)
    for (label, group), color in zip(
        groups.items(), ("tab:blue", "silver"), strict=True
    ):
        if group:
            axis.scatter(*_points(group), color=color, label=label)
    front = pareto_front(rows)
    axis.step(
        *_points(front),
        where="post",
        color="tab:orange",
        label="Pareto front",
    )
    begin = [row for row in rows if row["trial"] == first]
    if begin:
        axis.scatter(
            *_points(begin),
            marker="*",
            s=250,
            color="tab:red",
            label="first trial",
        )
    axis.set(xscale="log", xlabel="GFLOPs per example", ylabel="validation score")
    _leave_out_the_worst(axis, [row["score"] for row in rows])
    axis.grid(alpha=0.3)
    # Outside, since points may be anywhere.
    figure.legend(loc="outside upper center", ncols=4)
    return figure


def _leave_out_the_worst(axis, scores):
    """Sets the lower end of the axis so that outliers do not compress other scores."""
    best, median = max(scores), np.median(scores)
    bottom = median - 4 * (best - median)
    below = sum(score < bottom for score in scores)
    if below and best > median:
        axis.set_ylim(bottom=bottom)
        axis.text(
            0.02, 0.03, f"{below} of {len(scores)} are below", transform=axis.transAxes
        )


def _figure(figsize):
    figure = matplotlib("figure").Figure(figsize=figsize, layout="constrained")
    return figure, figure.subplots()


def _points(rows):
    return [row["GFLOPs"] for row in rows], [row["score"] for row in rows]


def _parallel(rows, names):
    """Draws parallel coordinates: one line per trial, colored by the rank of its score.

    With colors by the score itself, an outlier would make all others look the same.
    """
    # At most as wide as a notebook shows without making the text too small.
    figure, axis = _figure(figsize=(min(1.3 * len(names) + 2, 10), 5))
    scores = np.array([row["score"] for row in rows])
    order = np.argsort(scores)
    ranks = np.argsort(order) / max(len(rows) - 1, 1)
    scale = matplotlib("colors").Normalize(0, 1)
    scale = matplotlib("cm").ScalarMappable(scale, "viridis")
    colors = scale.to_rgba(ranks)
    places = {name: _place([row[name] for row in rows]) for name in names}
    for index in order:  # the best on top
        heights = [places[name][0][index] for name in names]
        axis.plot(heights, color=colors[index], alpha=0.8, linewidth=1.5)
    for x, name in enumerate(names):
        axis.axvline(x, color="black", linewidth=0.5)
        for height, text in places[name][1]:
            axis.annotate(
                text,
                (x, height),
                xytext=(4, 0),
                textcoords="offset points",
                fontsize=8,
                bbox={
                    "facecolor": "white",
                    "alpha": 0.7,
                    "edgecolor": "none",
                    "pad": 1,
                },
            )
    labels = [name.replace("_", "\n").replace(".", "\n") for name in names]
    axis.set_xticks(range(len(names)), labels, fontsize=8)
    axis.set(yticks=[], xlim=(-0.1, len(names) - 0.4))
    bar = figure.colorbar(
        scale,
        ax=axis,
        ticks=np.linspace(0, 1, 5),
        label="validation score, by rank",
    )
    bar.ax.set_yticklabels([f"{q:.3f}" for q in np.quantile(scores, bar.get_ticks())])
    return figure


def _place(values):
    """Returns the heights of values in [0, 1], and labels with their heights."""
    kinds = sorted(set(values), key=lambda value: (str(type(value)), value))
    if isinstance(values[0], float) and len(kinds) > 6:
        numbers = np.log(values) if min(values) > 0 else np.array(values)
        low, high = numbers.min(), numbers.max()
        texts = [(0.0, f"{min(values):.2g}"), (1.0, f"{max(values):.2g}")]
        return (numbers - low) / (high - low), texts
    step = max(len(kinds) - 1, 1)
    heights = {value: i / step for i, value in enumerate(kinds)}
    return (
        np.array([heights[value] for value in values]),
        [
            (height, f"{value:.3g}" if isinstance(value, float) else str(value))
            for value, height in heights.items()
        ],
    )


def _importance(rows, names):
    """Draws the permutation importance of each setting for the scores, by a forest."""
    try:
        from sklearn.ensemble import ExtraTreesRegressor
        from sklearn.inspection import permutation_importance
    except ImportError as error:
        raise ImportError(
            "The importance of settings needs scikit-learn, which is not installed. "
            "Install it with `pip install scikit-learn`."
        ) from error
    # The number of epochs matters as well, but is not a setting.
    epochs = [row["epochs"] + row["after_epochs"] for row in rows]
    columns = {name: _place([row[name] for row in rows])[0] for name in names}
    if len(set(epochs)) > 1:
        columns["epochs"] = np.array(epochs, float)
    table = np.stack(list(columns.values()), axis=1)
    scores = np.array([row["score"] for row in rows])
    forest = ExtraTreesRegressor(500, min_samples_leaf=2, random_state=0)
    forest.fit(table, scores)
    found = permutation_importance(forest, table, scores, n_repeats=20, random_state=0)
    order = np.argsort(found.importances_mean)
    figure, axis = _figure(figsize=(7, 0.35 * len(columns) + 1.2))
    labels = [list(columns)[i].replace("_", " ") for i in order]
    axis.barh(labels, found.importances_mean[order], xerr=found.importances_std[order])
    axis.set(xlabel="importance: loss of R² when the setting is shuffled")
    axis.grid(axis="x", alpha=0.3)
    return figure
