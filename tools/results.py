"""Prints a table of the runs in a folder, the seeds of a recipe in one row.

    python tools/results.py runs

Reads the `metrics.json` of every run that tools/train.py has finished.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

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
    folder = parser.parse_args(arguments).folder
    paths = sorted(folder.rglob("metrics.json"))
    if not paths:
        sys.exit(
            "error: `folder` must hold finished runs. Received: no metrics.json in "
            f"{str(folder)!r}. Train first, or name another folder."
        )
    print(table([json.loads(path.read_text()) for path in paths]))


def table(runs):
    """Returns the table, in Markdown, of a list of dicts as in `metrics.json`."""
    groups = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        groups.setdefault(tuple(run[name] for name in REPEATED), []).append(run)
    lines = [HEADER, ("---",) * len(HEADER)]
    for (recipe, backend, precision, *_), group in sorted(groups.items()):
        scores = [next(run[name] for name in SCORES if name in run) for run in group]
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
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
