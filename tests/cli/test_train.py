import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_perceiver import recipes
from keras_perceiver.cli import main
from keras_perceiver.training import Run
from tests.cli import ROOT
from tests.cli.test_main import RECIPE_FILE
from tests.convert.small import write_folder
from tests.training.runs import crash


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "epochs=0"], "^error: `epochs` must be a positive integer"),
        (["--set", "model.num_band=3"], "^error: A name must be an argument"),
        (
            ["--run-folder", "/dev/null/run"],
            "^error: `run_folder` must be a writable folder",
        ),
    ],
)
@pytest.mark.one_backend
def test_refuses_without_a_traceback(arguments, message):
    with pytest.raises(SystemExit, match=message):
        main(["train", "digits", *arguments])


def test_rejects_infeasible_settings(tmp_path):
    for arguments, message in (
        (["--distribution", "horovod"], "^error: `engine` must be one of"),
        (["--devices", "8"], "^error: .*devices=8"),
        (["--num-processes", "2"], "^error: Several processes"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(["train", "digits", *arguments])
    assert not (tmp_path / "runs").exists()


@pytest.mark.one_backend
def test_lists_the_settings(capsys):
    main(["train", "digits", "--list", "--set", "model.num_latents=3"])
    lines = capsys.readouterr().out.splitlines()
    assert "model.num_latents=3" in lines
    assert "optimizer.learning_rate=0.004" in lines
    assert not any(line.startswith(("name=", "overrides")) for line in lines)


@pytest.mark.one_backend
@pytest.mark.slow
def test_prints_its_steps_and_the_next_command(tmp_path, capsys):
    """The user's own recipe, from its file to its export."""
    (tmp_path / "a_recipe_to_train.py").write_text(RECIPE_FILE)
    options = ["--set", "epochs=2", "--set", "batch_size=512"]
    main(["train", "a_recipe_to_train.py", *options])
    del sys.modules["a_recipe_to_train"]
    out, err = capsys.readouterr()
    start, accuracy, *_, saved, exported, after = out.splitlines()
    assert re.fullmatch(
        r"mine on tensorflow: [\d,]+ parameters, 2 epochs of 2 steps -> runs/mine/1",
        start,
    )
    metrics = json.loads(
        (tmp_path / "runs" / "mine" / "1" / "metrics.json").read_text()
    )
    assert accuracy == f"test_accuracy: {metrics['test_accuracy']:.4f}"
    assert saved == "saved: runs/mine/1/model.keras"
    # Next to the model instead of the folder of a server.
    assert exported == "exported: runs/mine/1/export/1"
    assert {path.name for path in tmp_path.iterdir()} >= {"runs"}
    assert not (tmp_path / "exports").exists()
    assert after.startswith("next: ")
    assert after.endswith(" evaluate runs/mine/1 --recipe a_recipe_to_train.py")
    assert err.startswith("loading Keras")
    epochs = [line for line in err.splitlines() if line.startswith("epoch ")]
    assert re.fullmatch(
        r"epoch 1 of 2  loss \d\.\d{4}  accuracy 0\.\d{4}  val_loss \d\.\d{4}  "
        r"val_accuracy 0\.\d{4}  \d+ s left",
        epochs[0],
    )
    assert epochs[1].endswith("0 s left")


@pytest.mark.slow
@pytest.mark.one_backend
def test_sets_and_resumes_with_the_same_settings(capsys):
    recipe = recipes.get("digits").replace({"epochs": 1, "model.num_blocks": 1})
    folder = Path("runs/digits/2")
    run = Run(recipe, folder, "exports", save_every=1)
    run.prepare()
    with pytest.raises(RuntimeError, match="crashed"):
        run.fit([keras.callbacks.LambdaCallback(on_test_begin=lambda logs: crash())])
    with pytest.raises(
        SystemExit, match="^error: A run must be resumed with the config"
    ):
        main(["train", "digits", "--resume", "--set", "model.num_blocks=2"])
    main(["train", "digits", "--resume"])
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["overrides"] == {"epochs": 1, "model.num_blocks": 1}
    out = capsys.readouterr().out
    # The last step of an epoch is saved after its validation, which crashed.
    assert f"from step {run.step - 1} -> {folder}\n" in out
    assert f"saved: {folder / 'model.keras'}" in out
    # So do commands that read the run later.
    assert recipes.of_run(folder).model == recipe.model


@pytest.mark.one_backend
def test_resuming_a_complete_run_succeeds(tmp_path, capsys):
    """A supervisor can repeat `--resume` until it succeeds."""
    for number in (1, 2):
        folder = tmp_path / "runs" / "digits" / str(number)
        folder.mkdir(parents=True)
        for name in ("model.keras", "metrics.json"):
            (folder / name).write_text("{}")
    (tmp_path / "runs" / "digits" / "3").mkdir()  # failed before its first checkpoint
    for words in ([], ["--run-folder", "runs/digits/2"]):
        main(["train", "digits", "--resume", *words])
        out, err = capsys.readouterr()
        lines = out.splitlines()
        assert lines[0] == "already complete: runs/digits/2"
        assert lines[1] == "saved: runs/digits/2/model.keras"
        assert lines[2].endswith(" evaluate runs/digits/2")
        assert err == ""  # Keras is not imported
    path = tmp_path / "mine.py"
    path.write_text(RECIPE_FILE.replace('"mine"', '"digits_of_mine"'))
    (tmp_path / "runs" / "digits").rename(tmp_path / "runs" / "digits_of_mine")
    main(["train", "mine.py", "--resume"])
    del sys.modules["mine"]
    assert "already complete: runs/digits_of_mine/2" in capsys.readouterr().out


@pytest.mark.one_backend
def test_resumes_the_newest_run_that_did_not_finish(tmp_path):
    for number in (2, 9, 10, 11):  # the last one without a checkpoint
        folder = tmp_path / "runs" / "digits" / str(number) / "checkpoints"
        folder.mkdir(parents=True)
        if number != 11:
            (folder / "step-0000000001.checkpoint").write_text("damaged")
    with (
        pytest.warns(UserWarning, match="is damaged"),
        pytest.raises(SystemExit, match="intact.*runs/digits/10/"),
    ):
        main(["train", "digits", "--resume"])


@pytest.mark.slow
@pytest.mark.one_backend
@pytest.mark.integration
def test_interrupted_run_prints_the_command_that_resumes_it(tmp_path):
    words = ["train", "digits", "--seed", "3", "--set", "epochs=50"]
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_perceiver", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = []
    match = f"^error: The run folder .*process {process.pid} on .* uses it"
    with process.stderr:
        for line in process.stderr:
            lines.append(line.rstrip())
            if line.startswith("epoch  1 "):
                # No other process can use the folder at the same time.
                for more in ([], ["--resume"]):
                    again = ["train", "digits", "--run-folder", "runs/digits/1", *more]
                    with pytest.raises(SystemExit, match=match):
                        main(again)
                process.send_signal(signal.SIGINT)
    assert process.wait() == 128 + signal.SIGINT
    assert lines[-2].startswith("interrupted: Received SIGINT")
    *_, backend, after = lines[-1].partition("-m keras_perceiver ")
    assert backend
    assert after == " ".join([*words, "--run-folder", "runs/digits/1", "--resume"])


@pytest.mark.one_backend
@pytest.mark.slow
def test_fine_tunes_a_folder_of_transformers(tmp_path):
    write_folder(tmp_path / "pretrained")
    rng = np.random.default_rng(0)
    for i in range(12):
        path = tmp_path / "photos" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(path, rng.integers(0, 255, (8, 8, 3)), scale=False)
    settings = ("model.name=pretrained", "epochs=1", "batch_size=4")
    words = ["train", "fine_tune", "--data", "photos"]
    for setting in settings:
        words += ["--set", setting]
    result = subprocess.run(
        [sys.executable, "-m", "keras_perceiver", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    model = keras.saving.load_model(
        tmp_path / "runs" / "fine_tune" / "1" / "model.keras"
    )
    assert model.class_names == ("a", "b")
