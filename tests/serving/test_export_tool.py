import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from keras_perceiver import PerceiverClassifier

TOOL = runpy.run_path(Path(__file__).parents[2] / "tools" / "export.py")

pytestmark = [pytest.mark.one_backend, pytest.mark.integration]


def _run(capsys, *arguments):
    TOOL["main"](list(map(str, arguments)))
    return capsys.readouterr().out


def test_exports_the_model_of_a_run(tmp_path, capsys, monkeypatch):
    # It sets the backend for a process of its own.
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    model = PerceiverClassifier.from_preset(
        "digits", num_blocks=1, num_self_attends_per_block=1
    )
    run = tmp_path / "run"
    run.mkdir()
    names = [f"number {i}" for i in range(10)]
    model.class_names = names
    model.save(run / "model.keras")
    metrics = {"recipe": "digits", "class_names": names, "test_accuracy": 0.1}
    (run / "metrics.json").write_text(json.dumps(metrics))
    arguments = [run / "model.keras", "--to", tmp_path / "digits", "--no-check"]
    output = _run(capsys, *arguments, "--weights", "float16", "--test")
    assert "test accuracy 0." in output
    assert output.endswith(f"exported: {tmp_path}/digits/1\n")
    card = json.loads((tmp_path / "digits" / "1" / "model_card.json").read_text())
    assert card["metrics"] == metrics
    assert card["labels"] == names
    signature = tf.saved_model.load(tmp_path / "digits" / "1").signatures
    image = np.zeros((1, 8, 8, 1), "float32")
    (name,) = signature["serving_default"](image=image)["classes"].numpy()
    assert name.decode() in names


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["none.keras", "--to", "a"], "error: The model must be a .keras file"),
        (
            ["none.keras", "--to", "a", "--format", "pb"],
            "error: --format must be one of",
        ),
    ],
)
def test_clear_errors(arguments, match):
    with pytest.raises(SystemExit, match=match):
        TOOL["main"](arguments)
