"""Prints a table of the runs in a folder, the seeds of a recipe in one row.

    python tools/results.py runs
    .venv/bin/python tools/results.py runs --curves curves.png

Reads what tools/train.py has left in the folder of every run that it finished:
`metrics.json`, and `history.csv` for the learning curves.
"""

import argparse
import csv
import json
import statistics
import sys
from pathlib import Path

from common import markdown_table

# Runs that are alike in all of these repeat one another.
REPEATED = ("recipe", "backend", "precision", "epochs", "batch_size")
SCORES = ("test_accuracy", "test_mean_average_precision")
HEADER = ("Recipe", "Backend", "Seeds", "Test score", "Median", "Training, s")


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path("runs"), help="default: runs"
    )
    parser.add_argument(
        "--curves",
        type=Path,
        metavar="FILE",
        help="draw the learning curves too; needs matplotlib",
    )
    options = parser.parse_args(arguments)
    folder = options.folder
    paths = sorted(folder.rglob("metrics.json"))
    if not paths:
        sys.exit(
            "error: `folder` must hold finished runs. Received: no metrics.json in "
            f"{str(folder)!r}. Train first, or name another folder."
        )
    runs = [json.loads(path.read_text()) for path in paths]
    print(table(runs))
    if options.curves:
        histories = [_history(path.with_name("history.csv")) for path in paths]
        plot_curves(options.curves, runs, histories)
        print(f"\nwritten: {options.curves}")


def table(runs):
    """Returns the table, in Markdown, of a list of dicts as in `metrics.json`."""
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
    return markdown_table(lines)


def plot_curves(path, runs, histories):
    """Draws a panel for each row of the table, with the curves of all its seeds.

    Args:
        path: Path of the image.
        runs: List of dicts as in `metrics.json`.
        histories: List, for each run the list of rows of its `history.csv`.
    """
    try:
        import matplotlib
    except ImportError:
        sys.exit(
            "error: Learning curves need matplotlib, which is not installed. "
            'Install it with `pip install "keras_perceiver[demo]"`.'
        )
    matplotlib.use("agg")  # a file, no window
    import matplotlib.pyplot as plt

    rows_of = {id(run): rows for run, rows in zip(runs, histories, strict=True)}
    groups = _groups(runs)
    columns = min(len(groups), 4)
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
            epochs = [int(row["epoch"]) for row in rows]
            for prefix, color, label in parts:
                scores = [float(row[prefix + name]) for row in rows]
                label = label if run is group[0] else None
                axis.plot(epochs, scores, color=color, lw=0.8, label=label)
            # The test is once, at the end.
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
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _groups(runs):
    """Returns pairs of what the runs of a group have in common, and the runs."""
    groups = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        groups.setdefault(tuple(run[name] for name in REPEATED), []).append(run)
    return sorted(groups.items())


def _score(run):
    return next(name for name in SCORES if name in run)


def _history(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
