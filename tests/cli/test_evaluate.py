import csv
import json
import sys

import keras
import numpy as np
import pytest

from keras_perceiver import Image, ImagePreprocessor, Perceiver, PerceiverClassifier
from keras_perceiver.cli import main
from keras_perceiver.data import digits
from keras_perceiver.layers import SelfAttend
from tests.cli.test_main import RECIPE_FILE
from tests.data.files import write_image

pytestmark = pytest.mark.one_backend


@pytest.fixture
def run(tmp_path):
    """Returns the folder of a run, with an untrained model for digits."""
    encoder = Perceiver(
        Image((8, 8, 1), num_bands=2),
        num_latents=2,
        latent_dim=8,
        num_blocks=1,
        num_self_attends_per_block=1,
        self_attend=SelfAttend(num_heads=1),
    )
    model = PerceiverClassifier(encoder, 10, class_names=list("0123456789"))
    model.save(tmp_path / "model.keras")
    return tmp_path


def test_evaluates_a_split(run, capsys):
    arguments = [str(run / "model.keras"), "--recipe", "digits"]
    options = ["--split", "validation", "--output", str(run / "out")]
    main(["evaluate", *arguments, *options])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| class | examples | recall")
    assert len(lines) == 2 + 10 + 4
    found = json.loads((run / "out" / "evaluation.json").read_text())
    model = keras.saving.load_model(run / "model.keras", compile=False)
    x, y = next(digits().validation.as_numpy_iterator())
    expected = np.mean(model.predict_on_batch(x).argmax(axis=1) == y)
    assert found["accuracy"] == pytest.approx(expected)
    assert f"accuracy: {expected:.4f}" in lines


def test_evaluates_a_folder_with_the_classes_of_the_model(run):
    for i in range(3):
        write_image(run / "images" / "7" / f"{i}.png", (8, 8, 1), seed=i)
    # The folder of the run is sufficient, without a recipe.
    arguments = ["evaluate", str(run), "--folder", str(run / "images")]
    with pytest.raises(
        SystemExit, match="error: A folder of files needs a model with a preprocessor"
    ):
        main(arguments)
    model = keras.saving.load_model(run / "model.keras", compile=False)
    model.preprocessor = ImagePreprocessor((8, 8, 1))
    model.save(run / "model.keras")
    main(arguments)
    with (run / "evaluation" / "classes.csv").open() as file:
        examples = [int(row["examples"]) for row in csv.DictReader(file)]
    assert examples == [0] * 7 + [3] + [0] * 2
    model = keras.saving.load_model(run / "model.keras")
    model.class_names = None
    model.save(run / "model.keras")
    with pytest.raises(SystemExit, match="Received: a model without `class_names`"):
        main(arguments)


def test_run_on_a_folder_needs_the_folder_again(run):
    (run / "metrics.json").write_text('{"recipe": "images"}')
    with pytest.raises(SystemExit, match="needs its files again.* with --data DIR"):
        main(["evaluate", str(run)])


def test_recipe_file_of_a_run_is_run_only_if_it_is_named(run, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (run / "metrics.json").write_text(json.dumps({"recipe": "mine"}))
    with pytest.raises(SystemExit, match="of the recipe 'mine'. Pass .* --recipe"):
        main(["evaluate", str(run)])
    path = run / "a_recipe_to_evaluate.py"
    path.write_text(RECIPE_FILE)
    main(["evaluate", str(run), "--recipe", str(path)])
    assert "accuracy: 0." in capsys.readouterr().out
    del sys.modules["a_recipe_to_evaluate"]
