import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import keras
import keras_tuner as kt
import numpy as np
import pytest
from keras_tuner.errors import FailedTrialError

from keras_perceiver import (
    Config,
    Image,
    PerceiverClassifier,
    PerceiverHyperModel,
    tuning,
)
from keras_perceiver.tuning.search import as_chief
from tests.holder import holding

pytestmark = pytest.mark.one_backend

ROOT = Path(__file__).parents[2]
SPACE = {
    "num_latents": [4, 8, 16],
    "latent_dim": [12, 16, 32],
    "num_blocks": [1, 2],
    "num_self_attends_per_block": 1,
    "self_attend.num_heads": [1, 8],  # 12 is not divisible by 8
    "num_bands": 2,
    "max_resolution_scale": 1.0,
    "cross_attends_per_block": 1.0,
    "use_cross_attends_at_start": False,
    "share_weights": True,
    "dropout": 0.0,
    "optimizer": "adamw",
    "learning_rate": [1e-3, 1e-2],
    "weight_decay": 0.1,
    "label_smoothing": 0.0,
    "batch_size": 32,
}


class _Quick(PerceiverHyperModel):
    """Scores a model by a formula, without building it."""

    def build(self, hp):
        reason = self.infeasibility(self.values(hp))
        if reason is not None:
            raise FailedTrialError(reason)
        return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])

    def fit(self, hp, model, x, callbacks=(), **options):
        values = self.values(hp)
        for callback in callbacks:  # skips saving the weights
            callback.set_model(model)
            callback.on_epoch_end(0, {"val_accuracy": 0.5})
        x(values, options)
        score = values["num_latents"] / 16 - abs(values["latent_dim"] - 16) / 100
        return {"val_accuracy": score + options["epochs"] / 1000}


def hyper_model(num_examples=None, **space):
    task = Config(PerceiverClassifier, num_classes=10)
    modality = Image((8, 8, 1), num_bands=2)
    return _Quick(modality, task, {**SPACE, **space}, num_examples=num_examples)


def _search(folder, budget, algorithm="random", epochs=3, **options):
    seen, lines = [], []
    tuner = tuning.make_tuner(
        options.pop("hyper_model", None) or hyper_model(),
        folder,
        budget,
        algorithm,
        epochs,
        report=lines.append,
        **options,
    )
    rows = tuning.search(tuner, lambda *call: seen.append(call), epochs)
    return rows, seen, lines


@pytest.mark.parametrize("algorithm", tuning.ALGORITHMS)
def test_only_feasible_models_are_tried_within_the_budget(algorithm, tmp_path):
    rows, seen, lines = _search(tmp_path / "search", tuning.Budget(trials=7), algorithm)
    assert len(rows) == 7
    completed = [row for row in rows if row["status"] == "COMPLETED"]
    assert len(seen) == len(completed)
    # A grid has all values of a row.
    assert len(completed) >= (4 if algorithm == "grid" else 7)
    for row in completed:
        assert row["latent_dim"] % row["self_attend.num_heads"] == 0
    scores = [row["score"] for row in completed]
    assert scores == sorted(scores, reverse=True)
    # The search starts with the defaults, and tries nothing twice (except for
    # Hyperband, which continues with the best).
    defaults = hyper_model().defaults
    (first,) = (row for row in rows if int(row["trial"]) == 0)
    assert {name: first[name] for name in defaults} == defaults
    tried = [[row[name] for name in (*SPACE, "after_epochs")] for row in rows]
    assert len(set(map(str, tried))) == 7
    if algorithm == "hyperband":
        assert {row["epochs"] for row in rows} == {1, 2, 3} - {2} | {
            row["epochs"] for row in rows if row["after_epochs"]
        }
        assert max(row["after_epochs"] for row in rows) > 0
    assert lines[0].split()[:3] == ["trial", "status", "score"]
    # A line has the values that differ from the defaults.
    cells = len(lines[0].removesuffix("changed settings"))
    changed = {line.split()[0]: line[cells:] for line in lines[1:]}
    for row in completed:
        names = [n for n in ("num_latents", "latent_dim") if row[n] != defaults[n]]
        for name in ("num_latents", "latent_dim"):
            assert (f"{name}=" in changed[row["trial"]]) == (name in names)
    assert len([line for line in lines if "COMPLETED" in line]) == len(completed)


def test_budgets(tmp_path):
    rows, _, _ = _search(tmp_path / "epochs", tuning.Budget(epochs=10), epochs=3)
    assert len(rows) == 4  # the fourth trial starts when nine epochs are used up
    budget = tuning.Budget(minutes=1e-9, trials=5)
    with pytest.raises(ValueError, match="A trial must be able to start"):
        _search(tmp_path / "minutes", budget)
    with pytest.raises(ValueError, match="A budget must have a limit"):
        tuning.Budget()
    with pytest.raises(ValueError, match="`trials` must be positive"):
        tuning.Budget(trials=0)
    with pytest.raises(ValueError, match="`algorithm` must be one of"):
        _search(tmp_path / "other", budget, "genetic")
    ranges = hyper_model(learning_rate=(1e-4, 1e-2))
    with pytest.raises(ValueError, match="A grid has no ranges"):
        _search(tmp_path / "grid", budget, "grid", hyper_model=ranges)


def test_running_trial_is_stopped_in_time_and_counts(tmp_path):
    images = np.random.default_rng(0).normal(size=(8, 8, 8, 1)).astype("float32")
    labels = np.arange(8) % 2
    lines, epochs = [], []
    tuner = tuning.make_tuner(
        PerceiverHyperModel(
            Image((8, 8, 1), num_bands=2),
            Config(PerceiverClassifier, num_classes=2),
            {**SPACE, "latent_dim": 16, "num_blocks": 1, "batch_size": [8, 32]},
        ),
        tmp_path / "search",
        tuning.Budget(minutes=2 / 60),
        "random",
        1_000_000,
        report=lines.append,
    )
    start = time.monotonic()
    rows = tuning.search(
        tuner,
        images,
        1_000_000,
        y=labels,
        validation_split=0.0,
        validation_data=(images, labels),
        progress=lambda *where: epochs.append(where),
    )
    # A million epochs would take a day. Compilation is included.
    assert time.monotonic() - start < 120
    (row,) = rows
    assert row["status"] == "COMPLETED"
    assert 0 <= row["score"] <= 1
    assert row["batch_size"] == 8  # there are no 32 examples
    assert 1 <= row["epochs"] == len(epochs) < 1_000_000
    assert epochs[0] == (row["trial"], 0)
    assert f"stopped after {row['epochs']} epochs: the time is up" in lines[-1]
    # A resumed search has the same table.
    tuner = tuning.make_tuner(
        tuner.hypermodel, tmp_path / "search", tuning.Budget(trials=1), "random", 3
    )
    assert tuning.table(tuner.oracle) == rows


def test_batches_larger_than_the_data_are_infeasible(tmp_path):
    few = hyper_model(batch_size=[4, 8, 16, 32], num_examples=10)
    rows, _, _ = _search(tmp_path / "a", tuning.Budget(trials=6), hyper_model=few)
    assert {row["batch_size"] for row in rows} <= {4, 8}
    assert {row["status"] for row in rows} == {"COMPLETED"}
    with pytest.raises(ValueError, match="batch_size=8 exceeds the 3 training exam"):
        few.set_num_examples(3)


def test_search_folder_is_locked(tmp_path):
    (tmp_path / "search").mkdir()
    with holding(tmp_path / "search" / ".lock") as process:
        match = (
            f"The search folder '{tmp_path}/search' must be .*process {process.pid} "
        )
        with pytest.raises(BlockingIOError, match=match):
            _search(tmp_path / "search", tuning.Budget(trials=1))
    rows, _, _ = _search(tmp_path / "search", tuning.Budget(trials=1))
    assert len(rows) == 1


def test_killed_search_resumes(tmp_path):
    class _KilledError(BaseException):
        pass

    def data(values, options):
        seen.append(values)
        if len(seen) == 3:
            raise _KilledError

    seen = []

    def tune():
        tuner = tuning.make_tuner(
            hyper_model(), tmp_path / "a", tuning.Budget(trials=5), "random", 3
        )
        return tuning.search(tuner, data, 3)

    with pytest.raises(_KilledError):
        tune()
    rows = tune()
    assert [row["status"] for row in rows] == ["COMPLETED"] * 5
    assert all(row["seconds"] > 0 for row in rows)
    # Only the third trial was started twice.
    counts = Counter(json.dumps(values) for values in seen)
    assert sorted(counts.values()) == [1, 1, 1, 1, 2]


def test_failures_are_in_the_table_and_do_not_end_a_search(tmp_path):
    def data(values, options):
        if values["num_latents"] != 16:
            raise MemoryError("no space")

    tuner = tuning.make_tuner(
        hyper_model(),
        tmp_path / "a",
        tuning.Budget(trials=12),
        "random",
        3,
        report=(lines := []).append,
    )
    rows = tuning.search(tuner, data, 3)
    statuses = Counter(row["status"] for row in rows)
    assert statuses["FAILED"] > 3
    assert statuses["COMPLETED"] > 0
    assert [line for line in lines if "no space" in line]
    assert rows[-1]["score"] is None


def test_hyperparameters_of_the_user_replace_the_space(tmp_path):
    hp = kt.HyperParameters()
    hp.Fixed("num_latents", 5)
    hp.Choice("num_blocks", [3, 4])
    rows, _, _ = _search(tmp_path / "a", tuning.Budget(trials=4), hyperparameters=hp)
    assert {row["num_latents"] for row in rows} == {5}
    assert {row["num_blocks"] for row in rows} <= {3, 4}


_PROGRAM = """
import os, pathlib, sys, time
os.environ["KERAS_BACKEND"] = "jax"  # which is imported in half of the time
from tests.tuning import test_search
from keras_perceiver import tuning

folder = pathlib.Path(sys.argv[1])
name = os.environ["KERASTUNER_TUNER_ID"]

def data(values, options):
    with (folder / "log.txt").open("a") as file:
        file.write(f"{name} {os.getpid()} begins {values}\\n")
    time.sleep(0.3)
    with (folder / "log.txt").open("a") as file:
        file.write(f"{name} {os.getpid()} ends {values}\\n")

tuner = tuning.make_tuner(
    test_search.hyper_model(), folder / "search", tuning.Budget(trials=8), "random", 3
)
tuning.search(tuner, data, 3)
"""


@pytest.mark.slow
def test_chief_and_workers_of_which_one_is_killed(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    log, killed = tmp_path / "log.txt", []

    def kill_one():
        """Kills the worker that runs the third trial."""
        while not killed:
            begun = [
                line.split()
                for line in (log.read_text().splitlines() if log.exists() else [])
                if " begins " in line
            ]
            if len(begun) >= 3:
                os.kill(int(begun[2][1]), signal.SIGKILL)
                killed.append(begun[2])
            time.sleep(0.01)

    threading.Thread(target=kill_one, daemon=True).start()
    with as_chief():
        tuner = tuning.make_tuner(
            hyper_model(), tmp_path / "search", tuning.Budget(trials=8), "random", 3
        )
        rows = tuning.search(
            tuner,
            None,
            3,
            num_workers=2,
            command=[sys.executable, "-c", _PROGRAM, str(tmp_path)],
        )
    assert "KERASTUNER_TUNER_ID" not in os.environ
    assert [row["status"] for row in rows] == ["COMPLETED"] * 8
    lines = [line.split(maxsplit=3) for line in log.read_text().splitlines()]
    assert len({name for name, *_ in lines}) == 2
    ended = Counter(values for _, _, what, values in lines if what == "ends")
    assert sorted(ended.values()) == [1] * 8  # no trial is lost or repeated
    begun = Counter(values for _, _, what, values in lines if what == "begins")
    assert sorted(begun.values()) == [1] * 7 + [2]  # except for the one that was killed


def test_repeatedly_dying_worker_is_not_restarted(tmp_path):
    program = "import sys; sys.exit(3)"
    with as_chief():
        tuner = tuning.make_tuner(
            hyper_model(), tmp_path / "search", tuning.Budget(trials=2), "random", 3
        )
        with pytest.raises(RuntimeError, match="all 2 died 3 times"):
            tuning.search(
                tuner, None, 3, num_workers=2, command=[sys.executable, "-c", program]
            )


@pytest.mark.slow
def test_tables_and_figures(tmp_path):
    rows, _, _ = _search(tmp_path / "search", tuning.Budget(trials=8))
    tuning.write_trials(rows, tmp_path / "trials.csv")
    assert tuning.read_trials(tmp_path / "trials.csv") == rows
    front = tuning.pareto_front(rows)
    for row in rows:
        better = [f for f in front if f["GFLOPs"] <= row["GFLOPs"]]
        assert better
        assert max(f["score"] for f in better) >= row["score"]
    assert front[-1]["score"] == rows[0]["score"]
    paths = tuning.plot_trials(rows, tmp_path, first="0")
    assert [p.name for p in paths] == ["front.png", "parallel.png", "importance.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    with pytest.raises(ValueError, match="must be a completed trial"):
        tuning.plot_trials([{**rows[0], "status": "FAILED"}], tmp_path)
