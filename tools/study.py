"""Helpers of the studies: many small runs, their rows in a CSV, and means over seeds.

A study is a list of runs, each described by a dict of strings and numbers. Runs that are
in the CSV already are skipped, so that an interrupted study continues where it stopped.
"""

import csv
import statistics
import time
from pathlib import Path

from common import check_backend


def add_arguments(parser, epochs):
    """Adds the common options of all studies."""
    parser.add_argument(
        "--recipe",
        default="digits",
        help="recipe of the images: digits (default), clipart, mnist, cifar10",
    )
    parser.add_argument("--data", metavar="DIR", help="folder of the recipe's data")
    parser.add_argument("--epochs", type=int, default=epochs, help=f"default: {epochs}")
    parser.add_argument("--batch-size", type=int, default=64, help="default: 64")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("studies"),
        help="folder for CSV and figure; default: studies",
    )


def load_splits(options, seed):
    """Returns the data of the recipe, after a check that they are labeled images.

    Raises:
        ValueError: if the backend is unknown, or if the recipe has other data.
    """
    check_backend()
    from keras_perceiver import recipes

    recipe = recipes.get(options.recipe)
    splits = recipe.splits(options.batch_size, seed, options.data)
    inputs, labels = splits.train.element_spec
    if isinstance(inputs, dict) or len(inputs.shape) != 4 or len(labels.shape) != 1:
        raise ValueError(
            "A study needs images with one label each. Received: the recipe "
            f"{options.recipe!r} with {splits.train.element_spec}. Choose digits, "
            "clipart, mnist or cifar10."
        )
    return splits


def fit_and_score(model, splits, epochs, learning_rate=2e-3):
    """Trains a classifier in the same way for all studies, and returns its test accuracy.

    It uses AdamW with a short warm-up and cosine decay to zero.
    """
    import keras

    from keras_perceiver.training import warm_cosine

    steps_per_epoch = int(splits.train.cardinality())
    num_steps = epochs * steps_per_epoch
    schedule = warm_cosine(learning_rate, num_steps)
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=0.05, clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        splits.epochs(0, epochs),
        steps_per_epoch=steps_per_epoch,
        epochs=epochs,
        verbose=0,
        shuffle=False,
    )
    return model.evaluate(splits.test, verbose=0, return_dict=True)["accuracy"]


def run_all(path, runs, do_run):
    """Executes runs that are not in the CSV yet, and returns the rows of all runs.

    Args:
        path: Path of the CSV.
        runs: List of dicts that describe the runs.
        do_run: Callable that takes a run and returns a dict of its results.
    """
    done = _read(path)
    rows = []
    for i, run in enumerate(runs):
        key = tuple(map(str, run.values()))
        if key not in done:
            start = time.perf_counter()
            row = {**run, **do_run(run)}
            row["seconds"] = round(time.perf_counter() - start, 1)
            _append(path, row)
            done[key] = {name: str(value) for name, value in row.items()}
        row = done[key]
        rest = {name: row[name] for name in row if name not in run}
        print(f"[{i + 1}/{len(runs)}] {', '.join(key)}: {rest}", flush=True)
        rows.append(row)
    return rows


def means(rows, by):
    """Returns a dict from the values of the columns `by` to mean, deviation and scores.

    The deviation is the sample standard deviation, 0 for a single score.
    """
    groups = {}
    for row in rows:
        key = tuple(row[name] for name in by)
        groups.setdefault(key, []).append(float(row["accuracy"]))
    return {
        key: (
            statistics.mean(scores),
            statistics.stdev(scores) if len(scores) > 1 else 0.0,
            scores,
        )
        for key, scores in groups.items()
    }


def _read(path):
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        names = reader.fieldnames
        num_keys = names.index("parameters")
        return {tuple(row[name] for name in names[:num_keys]): row for row in reader}


def _append(path, row):
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)
