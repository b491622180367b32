import json
import subprocess
import sys

import pytest
from matplotlib import pyplot as plt

from keras_perceiver.cli import main
from tests.cli import ROOT

pytestmark = [pytest.mark.one_backend, pytest.mark.integration]


def _write_run(folder, **changes):
    run = {
        "recipe": "digits",
        "backend": "jax",
        "precision": "float32",
        "epochs": 2,
        "batch_size": 32,
        "seed": 0,
        "test_accuracy": 0.5,
        "train_seconds": 10.0,
        **changes,
    }
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(run))


def test_only_seeds_share_a_row(tmp_path, capsys):
    accuracies = {2: 0.9, 0: 0.75, 1: 0.8}
    for seed, accuracy in accuracies.items():
        _write_run(
            tmp_path / "digits" / str(seed),
            seed=seed,
            test_accuracy=accuracy,
            train_seconds=10.0 + seed,
        )
    _write_run(tmp_path / "half", precision="mixed_bfloat16")
    _write_run(tmp_path / "longer", epochs=3, test_accuracy=1.0)
    _write_run(tmp_path / "clipart" / "1", recipe="clipart", backend="torch")
    (tmp_path / "unfinished").mkdir()
    main(["results", str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| clipart | torch | 0 | 0.5000 | 0.5000 | 10 |",
        "| digits | jax | 0, 1, 2 | 0.7500, 0.8000, 0.9000 | 0.8000 | 10, 11, 12 |",
        "| digits | jax | 0 | 1.0000 | 1.0000 | 10 |",
        "| digits | jax, mixed_bfloat16 | 0 | 0.5000 | 0.5000 | 10 |",
    ]


def test_curves_of_all_seeds_share_a_panel(tmp_path, capsys, monkeypatch):
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        _write_run(folder, seed=seed, test_accuracy=0.75 + seed / 8)
        lines = ["epoch,accuracy,val_accuracy", f"1,0.{seed},0.2", "2,0.5,0.4"]
        (folder / "history.csv").write_text("\n".join(lines))
    many = tmp_path / "many"
    _write_run(many, recipe="audioset", test_mean_average_precision=0.5)
    run = json.loads((many / "metrics.json").read_text())
    del run["test_accuracy"]
    (many / "metrics.json").write_text(json.dumps(run))
    names = "epoch,mean_average_precision,val_mean_average_precision"
    (many / "history.csv").write_text(f"{names}\n1,0.1,0.2")
    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    path = tmp_path / "curves.png"
    main(["results", str(tmp_path), "--curves", str(path)])
    assert f"written: {path}" in capsys.readouterr().out
    assert plt.imread(path).std() > 0
    audio, images = figures.pop().axes
    assert audio.get_ylabel() == "mean average precision"
    assert images.get_title() == "digits (jax), seeds 0, 1"
    assert [list(line.get_ydata()) for line in images.lines] == [
        [0.0, 0.5],
        [0.2, 0.4],
        [0.75],
        [0.1, 0.5],
        [0.2, 0.4],
        [0.875],
    ]


def test_no_runs_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match=r"no metrics.json in .*Train first"):
        main(["results", str(tmp_path)])


def test_metrics_of_something_else_are_an_error(tmp_path):
    (tmp_path / "metrics.json").write_text('{"seed": 0}')
    with pytest.raises(SystemExit, match=r"metrics.json' without backend, batch_size"):
        main(["results", str(tmp_path)])


def test_json(tmp_path, capsys):
    _write_run(tmp_path / "1", seed=3)
    main(["results", str(tmp_path), "--json"])
    (run,) = json.loads(capsys.readouterr().out)
    assert (run["folder"], run["seed"]) == (str(tmp_path / "1"), 3)


def test_make_results(tmp_path):
    _write_run(tmp_path / "1")
    result = subprocess.run(
        ["make", "results", f"PYTHON={sys.executable}", f"ARGS={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "| digits | jax | 0 | 0.5000 |" in result.stdout
