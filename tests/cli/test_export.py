import importlib.util
import json

import numpy as np
import pytest
import tensorflow as tf

from keras_perceiver import PerceiverClassifier
from keras_perceiver.cli import main
from keras_perceiver.serving import verify_version
from keras_perceiver.serving.card import weights_hash
from tests.cli.damage import write_archive

pytestmark = [pytest.mark.one_backend, pytest.mark.integration]


def _run(capsys, *arguments):
    main(["export", *map(str, arguments)])
    return capsys.readouterr().out


@pytest.mark.slow
def test_exports_the_model_of_a_run(tmp_path, capsys, monkeypatch):
    # In a separate process, since it sets the backend.
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
    metrics["weights_sha256"] = weights_hash(model)
    (run / "metrics.json").write_text(json.dumps(metrics))
    arguments = [run / "model.keras", "--to", tmp_path / "digits", "--no-check"]
    output = _run(capsys, *arguments, "--weights", "float16", "--test")
    assert "test accuracy 0." in output
    *_, exported, after = output.splitlines()
    assert exported == f"exported: {tmp_path}/digits/1"
    assert f"-v {tmp_path}/digits:/models/digits " in after
    assert "serve-client localhost:8500 digits FILE" in after
    assert verify_version(tmp_path / "digits" / "1") == 6
    card = json.loads((tmp_path / "digits" / "1" / "model_card.json").read_text())
    assert card["metrics"] == metrics
    assert card["labels"] == names
    signature = tf.saved_model.load(tmp_path / "digits" / "1").signatures
    image = np.zeros((1, 8, 8, 1), "float32")
    (name,) = signature["serving_default"](image=image)["classes"].numpy()
    assert name.decode() in names


def test_reports_missing_libraries_first(tmp_path, monkeypatch):
    write_archive(tmp_path / "model.keras")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "onnxruntime" else find_spec(name, *rest),
    )
    arguments = ["export", str(tmp_path), "--to", "a.onnx", "--format", "onnx"]
    with pytest.raises(SystemExit, match="`pip install tf2onnx onnx onnxruntime`"):
        main(arguments)
    # It is only needed for the comparison, so the error is about the file itself.
    with pytest.raises(SystemExit, match="error: .*model.keras"):
        main([*arguments, "--no-check"])
