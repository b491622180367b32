import csv
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keras_perceiver import tuning
from keras_perceiver.cli import main
from keras_perceiver.cli.tune import ALGORITHMS
from keras_perceiver.tuning.search import as_chief
from tests.cli import ROOT
from tests.holder import holding

pytestmark = pytest.mark.one_backend


def test_algorithms_are_those_of_the_package():
    assert ALGORITHMS == tuning.ALGORITHMS


@pytest.mark.slow
def test_from_the_space_to_the_export(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["tune", "digits", "--algorithm", "random", "--epochs", "1"]
    options += ["--trials", "2", "--set", "num_latents=[4, 5]", "--set", "num_blocks=1"]
    options += ["--set", "optimizer=lamb", "--max-gflops", "0.01"]
    main(options)
    text, err = capsys.readouterr()
    folder = Path("searches") / "digits" / "1"
    assert text.startswith(
        "digits on tensorflow: random, trials of up to 1 epochs, until 2 trials -> "
        f"{folder}\n"
    )
    assert "searching ..." in err
    # The best model is trained on request, without further trials.
    assert not (folder / "best").exists()
    *_, after = text.splitlines()
    assert after.startswith("next, to train the best model for 120 epochs, about ")
    *_, words = after.partition(" tune ")
    words = shlex.split(words)
    assert "--trials" not in words
    assert words[-4:] == ["--resume", "--folder", str(folder), "--retrain"]
    main(["tune", *words, "1"])
    text = capsys.readouterr().out
    assert text.startswith(f"digits on tensorflow: no more trials -> {folder}\n")
    with (folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["num_latents"] for row in rows} <= {"4", "5"}
    assert {row["optimizer"] for row in rows} == {"lamb"}
    metrics = json.loads((folder / "best" / "metrics.json").read_text())
    assert f"test_accuracy: {metrics['test_accuracy']:.4f}" in text
    # Nothing is written to the folder of a server.
    assert f"exported: {folder}/best/export/1" in text
    assert not Path("exports").exists()
    assert "best: trial " in text
    assert metrics["parameters"] == int(rows[0]["parameters"])
    for bad, match in (
        ([], "A search is never overwritten"),
        (["--resume", "--folder", "nowhere"], "must be a search to resume"),
        (["--set", "latent_dim", "--folder", "a"], "must have the form"),
        (["--set", "latent_dim=31", "--folder", "b"], "must be divisible"),
    ):
        with pytest.raises(SystemExit, match=match):
            main([*options, "--folder", str(folder), *bad])


def test_one_process_per_folder(tmp_path):
    with holding(tmp_path / ".lock") as process:
        words = ["tune", "digits", "--trials", "1", "--folder", str(tmp_path)]
        for more in ([], ["--resume"]):
            with pytest.raises(
                SystemExit, match=f"process {process.pid} on .* uses it"
            ):
                main([*words, *more])


@pytest.mark.parametrize("retrain", ["0", "-1"])
def test_epochs_of_the_best_model(retrain):
    with pytest.raises(SystemExit, match="--retrain must be positive"):
        main(["tune", "digits", "--trials", "1", "--retrain", retrain])


def test_a_worker_ends_with_its_chief(tmp_path):
    """A chief that is killed leaves no worker behind."""
    with as_chief():
        environment = {**os.environ, "KERASTUNER_TUNER_ID": "worker0"}
    environment["PYTHONPATH"] = str(ROOT)
    parent = (
        "import os, subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-m', 'keras_perceiver', 'tune', "
        f"'digits', '--trials', '1', '--folder', {str(tmp_path)!r}, '--resume', "
        "'--chief', str(os.getpid())])\n"
        "print(p.pid, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    ) as process:
        worker = int(process.stdout.readline())
        time.sleep(2)  # otherwise it would wait for the chief for an hour
        process.kill()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{worker}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
