"""Every recipe on small files as described in its card."""

import dataclasses

import numpy as np
import pytest

from keras_perceiver import recipes
from keras_perceiver.recipes import instruments_clipart
from tests.data.files import write_audio, write_image, write_points
from tests.training.runs import EagerClassifier, finished

pytestmark = pytest.mark.one_backend


def _write_note(path, seed):
    write_audio(path.with_suffix(".wav"), num_samples=4000, seed=seed)


def _write_drawing(path, seed):
    write_image(path.with_suffix(".png"), (32, 32, 3), seed=seed)


def _write_points(path, seed):
    write_points(path.with_suffix(".npy"), 1024, seed=seed)


def _write_folder(folder, write, classes, num_files):
    for part in ("train", "test"):
        for label, name in enumerate(classes):
            for i in range(num_files):
                # Names as in the real datasets, where equal prefixes belong together.
                write(folder / part / name / f"{20 * i:04}", seed=100 * label + i)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("clipart", _write_drawing),
        ("furniture", _write_points),
        ("instruments_mel", _write_note),
        ("instruments_raw", _write_note),
    ],
)
def test_recipe_reads_its_folder(name, write, tmp_path):
    _write_folder(tmp_path, write, ("first", "second"), num_files=3)
    recipe = recipes.get(name)
    splits = recipe.splits(2, data_folder=tmp_path)
    assert splits.class_names == ("first", "second")
    model = recipe.build_task(recipe.model(), splits)
    for part in splits[:3]:
        inputs, labels = next(iter(part))
        assert model.predict_on_batch(inputs).shape == (len(labels), 2)


@pytest.mark.slow
def test_notes_and_drawings(tmp_path):
    classes = instruments_clipart.CLASSES
    _write_folder(tmp_path / "instruments", _write_note, classes, num_files=2)
    _write_folder(tmp_path / "clipart", _write_drawing, classes.values(), num_files=3)
    recipe = recipes.get("instruments_clipart")
    recipe = dataclasses.replace(recipe, task=EagerClassifier)
    recipe = recipe.replace({"epochs": 1, "batch_size": 6})
    splits = recipe.splits(6, data_folder=tmp_path)
    # One pair per drawing. Pairs of the same note are held out together, or not at all.
    sizes = [sum(len(labels) for _, labels in part) for part in splits[:3]]
    assert sizes[2] == 18
    assert sizes[1] >= 6

    run = finished(recipe, tmp_path / "run", data_folder=tmp_path)
    model, metrics = run.model, run.metrics
    assert metrics["test_accuracy_without"].keys() == {"audio", "image"}
    for name, accuracy in metrics["test_accuracy_without"].items():
        right = 0
        for inputs, labels in splits.test:
            arrays = {k: x.numpy() for k, x in inputs.items()}
            arrays[name][...] = np.nan
            arrays[f"{name}_mask"][...] = False
            logits = model.predict_on_batch(arrays)
            right += (logits.argmax(-1) == labels.numpy()).sum()
        assert accuracy == pytest.approx(right / 18)


def test_folders_of_pairs_are_named_if_they_are_missing(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no file of .*\.wav.* in .*bass.*--data"
    ):
        recipes.get("instruments_clipart").splits(6, 0, tmp_path)
    classes = instruments_clipart.CLASSES
    _write_folder(tmp_path / "instruments", _write_note, classes, num_files=1)
    with pytest.raises(FileNotFoundError, match=r"no file of .*\.png.* in .*animals"):
        recipes.get("instruments_clipart").splits(6, 0, tmp_path)
