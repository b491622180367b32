import csv
import json
import runpy
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn import metrics as sklearn_metrics

from keras_perceiver import Image, Perceiver, PerceiverClassifier
from keras_perceiver.data import digits
from keras_perceiver.training import Evaluation, evaluate
from keras_perceiver.training.evaluate import top_accuracy
from tests.data.files import write_image

TOOL = Path(__file__).parents[2] / "tools" / "evaluate.py"
NAMES = tuple("abcdefg")


def _single(num_examples=200):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, num_examples)  # none of the last class
    logits = rng.normal(size=(num_examples, 7)) + 2 * np.eye(7)[labels]
    return Evaluation(labels, logits.astype("float32"), NAMES)


def _multi(num_examples=200):
    rng = np.random.default_rng(0)
    labels = (rng.random((num_examples, 7)) < 0.2).astype("float32")
    labels[:, 6] = 0
    logits = np.round(rng.normal(size=labels.shape) + labels, 1)  # many are equal
    return Evaluation(labels, logits.astype("float32"), NAMES)


@pytest.mark.one_backend
def test_scores_of_one_label_equal_sklearn():
    found = _single()
    labels, scores = found.labels, found.probabilities
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    metrics = found.metrics()
    for name, k in (("accuracy", 1), ("top_5_accuracy", 5)):
        expected = sklearn_metrics.top_k_accuracy_score(
            labels, scores, k=k, labels=range(7)
        )
        assert metrics[name] == pytest.approx(expected)
    assert top_accuracy(labels, scores, 1) < top_accuracy(labels, scores, 5) < 1
    predicted = scores.argmax(axis=1)
    np.testing.assert_array_equal(
        found.confusion(),
        sklearn_metrics.confusion_matrix(labels, predicted, labels=range(7)),
    )
    expected = sklearn_metrics.precision_recall_fscore_support(
        labels, predicted, labels=range(6)
    )
    rows = found.classes()
    for name, values in zip(
        ("precision", "recall", "f1", "examples"), expected, strict=True
    ):
        np.testing.assert_allclose([row[name] for row in rows[:6]], values)
    assert rows[6]["recall"] is None
    assert rows[6]["examples"] == 0


@pytest.mark.one_backend
def test_scores_of_many_labels_equal_sklearn():
    found = _multi()
    expected = sklearn_metrics.average_precision_score(
        found.labels[:, :6], found.logits[:, :6], average=None
    )
    rows = found.classes()
    np.testing.assert_allclose([row["average_precision"] for row in rows[:6]], expected)
    assert rows[6]["average_precision"] is None
    mean = found.metrics()["mean_average_precision"]
    assert mean == pytest.approx(expected.mean())
    np.testing.assert_allclose(
        found.probabilities, 1 / (1 + np.exp(-found.logits.astype("float64")))
    )


@pytest.mark.one_backend
def test_calibration():
    # Half of what has a probability of 0.9 is right, and all that has one of 0.6.
    probabilities = np.array([0.9] * 4 + [0.6] * 4)
    logits = np.log(np.stack([probabilities, 1 - probabilities], axis=1))
    labels = np.array([0, 0, 1, 1, 0, 0, 0, 0])
    found = Evaluation(labels, logits, ("yes", "no"))
    for values, expected in zip(
        found.calibration(), ([0.5, 0.5], [0.6, 0.9], [1.0, 0.5]), strict=True
    ):
        np.testing.assert_allclose(values, expected)
    error = found.metrics()["expected_calibration_error"]
    assert error == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
    # The same, of every class by itself.
    many = Evaluation(np.eye(2)[labels], np.log(1 / (1 / probabilities - 1)), ())
    many = many._replace(logits=np.stack([many.logits, -many.logits], axis=1))
    assert many.metrics()["expected_calibration_error"] == pytest.approx(0.4)


@pytest.mark.one_backend
@pytest.mark.parametrize("make", [_single, _multi])
def test_writes_table_and_plots(make, tmp_path):
    found = make()
    found.write(tmp_path / "new")
    plots = {"calibration.png", *([] if found.is_multi_label else ["confusion.png"])}
    written = {path.name for path in (tmp_path / "new").iterdir()}
    assert written == plots | {"classes.csv", "evaluation.json"}
    for name in plots:
        assert (tmp_path / "new" / name).read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "new" / "evaluation.json").read_text()
    assert json.loads(text) == found.metrics()
    with (tmp_path / "new" / "classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(NAMES)
    score = "average_precision" if found.is_multi_label else "recall"
    assert float(rows[0][score]) == found.classes()[0][score]
    assert rows[6][score] == ""
    assert len(found.table().splitlines()) == 2 + len(NAMES)


def _dense(num_classes=3):
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(num_classes)(inputs))


@pytest.mark.parametrize("is_multi_label", [False, True])
def test_clips_of_an_example_are_averaged(is_multi_label):
    rng = np.random.default_rng(0)
    model = _dense()
    clips = rng.normal(size=(5, 3, 4)).astype("float32")  # three clips an example
    labels = rng.integers(0, 3, 5)
    y = np.eye(3)[labels] if is_multi_label else labels
    dataset = tf.data.Dataset.from_tensor_slices((clips, y)).batch(2)
    found = evaluate(model, dataset, "abc", is_multi_label)
    logits = np.stack([model.predict_on_batch(clips[:, i]) for i in range(3)])
    scores = [Evaluation(found.labels, x, ()).probabilities for x in logits]
    np.testing.assert_allclose(found.probabilities, np.mean(scores, 0), atol=1e-6)
    np.testing.assert_array_equal(found.labels, y)
    # An example of one clip is that clip.
    alone = tf.data.Dataset.from_tensor_slices((clips[:, 1], y)).batch(2)
    single = evaluate(model, alone, "abc", is_multi_label)
    np.testing.assert_allclose(single.logits, logits[1], atol=1e-6)


@pytest.mark.one_backend
def test_labels_that_are_parts_of_classes():
    model, labels = _dense(), np.array([2, 0, 1])
    soft = 0.8 * np.eye(3)[labels] + 0.2 / 3
    x = np.zeros((3, 4), "float32")
    for y in (labels, labels[:, None], soft):
        dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(2)
        np.testing.assert_array_equal(evaluate(model, dataset, "abc").labels, labels)
    with pytest.raises(ValueError, match="2 class names and a model of 3 classes"):
        evaluate(model, dataset, "ab")


@pytest.fixture
def run(tmp_path):
    """The folder of a run, with an untrained model for digits."""
    encoder = Perceiver(
        Image((8, 8, 1), num_bands=2),
        num_latents=2,
        latent_dim=8,
        num_blocks=1,
        num_self_attends_per_block=1,
        num_self_attend_heads=1,
    )
    PerceiverClassifier(encoder, 10).save(tmp_path / "model.keras")
    names = [str(i) for i in range(10)]
    (tmp_path / "metrics.json").write_text(json.dumps({"class_names": names}))
    return tmp_path


@pytest.mark.one_backend
def test_tool_evaluates_a_split(run, capsys):
    main = runpy.run_path(str(TOOL))["main"]
    arguments = [str(run / "model.keras"), "--recipe", "digits"]
    main([*arguments, "--split", "validation", "--output", str(run / "out")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| class | examples | recall")
    assert len(lines) == 2 + 10 + 4
    found = json.loads((run / "out" / "evaluation.json").read_text())
    model = keras.saving.load_model(run / "model.keras", compile=False)
    model.compile(metrics=["accuracy"], loss="mse")
    x, y = next(digits().validation.as_numpy_iterator())
    expected = np.mean(model.predict_on_batch(x).argmax(axis=1) == y)
    assert found["accuracy"] == pytest.approx(expected)
    assert f"accuracy: {expected:.4f}" in lines


@pytest.mark.one_backend
def test_tool_evaluates_a_folder_with_the_classes_of_the_model(run, monkeypatch):
    import dataclasses
    from functools import partial

    from keras_perceiver import recipes
    from keras_perceiver.data import ImageFiles

    for i in range(3):
        write_image(run / "images" / "7" / f"{i}.png", (8, 8, 1), seed=i)
    recipe = recipes.get("digits")
    main = runpy.run_path(str(TOOL))["main"]
    arguments = [str(run / "model.keras"), "--recipe", "digits"]
    arguments += ["--folder", str(run / "images")]
    with pytest.raises(
        SystemExit, match="error: The recipe 'digits' reads no labelled"
    ):
        main(arguments)
    with pytest.raises(SystemExit, match=r"`model` must be a file.*none.keras"):
        main([str(run / "none.keras"), "--recipe", "digits"])
    recipe = dataclasses.replace(recipe, files=partial(ImageFiles, (8, 8, 1)))
    monkeypatch.setattr(recipes, "get", lambda name: recipe)
    main(arguments)
    with (run / "evaluation" / "classes.csv").open() as file:
        examples = [int(row["examples"]) for row in csv.DictReader(file)]
    assert examples == [0] * 7 + [3] + [0] * 2
    (run / "metrics.json").unlink()
    with pytest.raises(SystemExit, match=r"Received: no .*metrics.json"):
        main(arguments)
