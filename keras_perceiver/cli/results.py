"""Prints a table of the runs in a folder, with one row for all seeds of a recipe."""

import csv
import json
import numbers
import statistics
from pathlib import Path

from keras_perceiver._files import read_json, replace_file
from keras_perceiver.cli import arguments

_DESCRIPTION = """Prints a table of the runs in a folder, one row for all seeds of a recipe.

  keras-perceiver results
  keras-perceiver results runs --curves curves.png

Reads the metrics.json of every finished run and, for learning curves, its history.csv.
Only learning curves need Matplotlib.
"""
_NUMBERS = ("seed", "train_seconds")
# Runs with equal values of these form a row.
REPEATED = ("recipe", "backend", "precision", "epochs", "batch_size")
HEADER = ("Recipe", "Backend", "Seeds", "Test score", "Median", "Training, s")


def parser():
    """Returns the parser of the options."""
    parser = arguments.Parser("results", _DESCRIPTION)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path("runs"), help="default: runs"
    )
    parser.add_argument(
        "--curves", type=Path, metavar="FILE", help="also plot the learning curves"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the metrics of all runs as JSON"
    )
    return parser


def check(options):
    """Raises an error for invalid options."""
    if not options.folder.is_dir():
        arguments.check_folder("The folder of the runs", str(options.folder))
    options.paths = sorted(options.folder.rglob("metrics.json"))
    if not options.paths:
        raise FileNotFoundError(
            "The folder must contain finished runs. Received: no metrics.json in "
            f"{str(options.folder)!r}. Train first, or pass another folder."
        )
    if options.curves:
        arguments.check_installed("matplotlib", "Matplotlib", "matplotlib")


def run(options):
    """Prints the table."""
    runs = [_metrics(path) for path in options.paths]
    if options.json:
        folders = map(str, (path.parent for path in options.paths))
        rows = [{"folder": f, **run} for f, run in zip(folders, runs, strict=True)]
        print(json.dumps(rows, indent=2))
    else:
        print(table(runs))
    if options.curves:
        histories = [
            _history(path.with_name("history.csv"), _score(run))
            for path, run in zip(options.paths, runs, strict=True)
        ]
        plot_curves(options.curves, runs, histories)
        if not options.json:
            print(f"\nwritten: {options.curves}")


def table(runs):
    """Returns a Markdown table for a list of dicts as in `metrics.json`."""
    lines = [HEADER]
    for (recipe, backend, precision, *_), group in _groups(runs):
        scores = [run[_score(run)] for run in group]
        lines.append(
            (
                recipe,
                backend if precision == "float32" else f"{backend}, {precision}",
                ", ".join(str(run["seed"]) for run in group),
                ", ".join(f"{score:.4f}" for score in scores),
                f"{statistics.median(scores):.4f}",
                ", ".join(f"{run['train_seconds']:.0f}" for run in group),
            )
        )
    header, *rows = lines
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def plot_curves(path, runs, histories):
    """Plots a panel per row of the table, with the curves of all its seeds.

    Args:
        path: Path of the image.
        runs: List of dicts as in `metrics.json`.
        histories: List with the list of rows of `history.csv` for each run, as dicts of
            numbers.
    """
    import matplotlib

    matplotlib.use("agg")  # to a file, without a window
    import matplotlib.pyplot as plt

    rows_of = {id(run): rows for run, rows in zip(runs, histories, strict=True)}
    groups = _groups(runs)
    columns = min(len(groups), 2)
    lines = -(-len(groups) // columns)
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(3.4 * columns + 0.4, 3.2 * lines + 0.5),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[len(groups) :]:
        axis.set_axis_off()
    parts = (("", "C0", "train"), ("val_", "C1", "validation"))
    for axis, ((recipe, backend, precision, *_), group) in zip(
        axes.flat, groups, strict=False
    ):
        name = _score(group[0]).removeprefix("test_")
        for run in group:
            rows = rows_of[id(run)]
            epochs = [row["epoch"] for row in rows]
            for prefix, color, label in parts:
                scores = [row[prefix + name] for row in rows]
                label = label if run is group[0] else None
                axis.plot(epochs, scores, color=color, lw=0.8, label=label)
            # The model is tested once, at the end.
            axis.plot(
                epochs[-1:],
                [run[_score(run)]],
                "*",
                color="C3",
                markersize=10,
                label="test" if run is group[0] else None,
            )
        numerics = backend if precision == "float32" else f"{backend}, {precision}"
        seeds = ", ".join(str(run["seed"]) for run in group)
        title = f"{recipe} ({numerics}), seed{'s' * (len(group) > 1)} {seeds}"
        axis.set_title(title, fontsize=9)
        axis.set(xlabel="epoch", ylabel=name.replace("_", " "), ylim=(0, 1))
        axis.grid(alpha=0.3)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    replace_file(path, lambda path: figure.savefig(path, dpi=110))
    plt.close(figure)


def _groups(runs):
    """Returns pairs of the common values of a group of runs, and the runs."""
    groups = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        groups.setdefault(tuple(run[name] for name in REPEATED), []).append(run)
    return sorted(groups.items())


def _metrics(path):
    run = read_json(path)
    missing = {*REPEATED, *_NUMBERS} - run.keys()
    missing |= {
        name for name in _NUMBERS if not isinstance(run.get(name), numbers.Real)
    }
    if _score(run) is None:
        missing.add("test_<score>")
    if missing:
        raise ValueError(
            "The metrics.json of a run must have all entries that `train` writes. "
            f"Received: {str(path)!r} without {', '.join(sorted(missing))}. Remove it, or "
            "pass another folder."
        )
    return run


def _score(run):
    """Returns the name of the score of a run, or `None`."""
    names = [name for name in run if name.startswith("test_") and name != "test_loss"]
    return next((name for name in names if isinstance(run[name], float)), None)


def _history(path, score):
    """Returns the epochs and the scores in a `history.csv`, as dicts of numbers."""
    name = score.removeprefix("test_")
    columns = ("epoch", name, f"val_{name}")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{c: float(row[c]) for c in columns} for row in csv.DictReader(file)]
        if not rows:
            raise ValueError("no epoch")
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise ValueError(
            "The history.csv of a run must be as `train` has written it. Received: "
            f"{str(path)!r} ({type(error).__name__}: {error}). Copy it again, or remove "
            "--curves."
        ) from error
    return rows
