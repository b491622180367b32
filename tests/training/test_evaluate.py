import csv
import json

import numpy as np
import pytest
import tensorflow as tf

from keras_perceiver import (
    Array,
    Perceiver,
    PerceiverClassifier,
    PerceiverMultiLabelClassifier,
    SelfAttend,
)
from keras_perceiver.training import evaluate, write_report
from keras_perceiver.training.evaluate import check_class_names, table
from tests.models.test_reports import NAMES, multi, single


@pytest.mark.one_backend
@pytest.mark.parametrize("make", [single, multi])
def test_writes_table_and_plots(make, tmp_path):
    found = make()
    write_report(found, tmp_path / "new")
    plots = {f"{name}.png" for name in found.figures()}
    written = {path.name for path in (tmp_path / "new").iterdir()}
    assert written == plots | {"classes.csv", "evaluation.json"}
    for name in plots:
        assert (tmp_path / "new" / name).read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "new" / "evaluation.json").read_text()
    assert json.loads(text) == found.metrics()
    with (tmp_path / "new" / "classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(NAMES)
    score = "average_precision" if make is multi else "recall"
    assert float(rows[0][score]) == found.rows()[0][score]
    assert rows[6][score] == ""
    assert len(table(found).splitlines()) == 2 + len(NAMES)


def _model(cls):
    encoder = Perceiver(
        Array((4, 1), num_bands=1, max_resolution=4),
        num_latents=2,
        latent_dim=8,
        num_blocks=1,
        num_self_attends_per_block=1,
        self_attend=SelfAttend(num_heads=1),
    )
    return cls(encoder, 3)


@pytest.mark.parametrize("cls", [PerceiverClassifier, PerceiverMultiLabelClassifier])
def test_clips_of_an_example_are_averaged(cls):
    rng = np.random.default_rng(0)
    model = _model(cls)
    clips = rng.normal(size=(5, 3, 4, 1)).astype("float32")  # three clips per example
    labels = rng.integers(0, 3, 5)
    y = np.eye(3)[labels] if cls is PerceiverMultiLabelClassifier else labels
    dataset = tf.data.Dataset.from_tensor_slices((clips, y)).batch(2)
    found = evaluate(model, dataset)
    logits = np.stack([model.predict_on_batch(clips[:, i]) for i in range(3)])
    probabilities = [model.report(y, x).probabilities for x in logits]
    np.testing.assert_allclose(
        found.probabilities, np.mean(probabilities, 0), atol=1e-6
    )
    np.testing.assert_array_equal(found.targets, y)
    # An example with one clip is not averaged.
    alone = tf.data.Dataset.from_tensor_slices((clips[:, 1], y)).batch(2)
    single = evaluate(model, alone)
    np.testing.assert_allclose(single.logits, logits[1], atol=1e-6)


@pytest.mark.one_backend
def test_data_must_have_the_classes_of_the_model():
    model = _model(PerceiverClassifier)
    with pytest.raises(ValueError, match="must be 3 different names.*2 names"):
        check_class_names(model, ["a", "b"])
    check_class_names(model, ["a", "b", "c"])
    assert model.class_names == ("a", "b", "c")
    with pytest.raises(ValueError, match="The data must have the classes.*trained"):
        check_class_names(model, ["a", "c", "b"])
