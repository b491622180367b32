"""Sizes that are chosen from a folder, and the recipes that use them."""

import re

import numpy as np
import pytest
import soundfile
from PIL import Image

from keras_perceiver import ImagePreprocessor, recipes
from keras_perceiver.recipes._sizes import settings
from tests.data.files import write_audio, write_image, write_points

pytestmark = pytest.mark.one_backend


def _write(folder, write, num_files=4):
    for label, name in enumerate(("first", "second")):
        for i in range(num_files):
            write(folder / name / f"{i}", 10 * label + i)
    return folder


def _splits_and_model(kind, folder):
    found, text = settings(kind, folder)
    recipe = recipes.get(kind).replace(found)
    splits = recipe.splits(2, data_folder=folder)
    model = recipe.build_task(recipe.model(), splits)
    inputs, labels = next(iter(splits.test))
    assert model.predict_on_batch(inputs).shape == (len(labels), 2)
    return found, text, splits


@pytest.mark.parametrize(
    ("size", "shape", "patch_size"),
    [
        ((8, 8, 1), (8, 8, 1), 1),
        ((28, 20, 3), (28, 20, 3), 2),
        ((90, 180, 3), (32, 64, 3), 4),
        ((400, 300, 4), (64, 48, 4), 4),
    ],
)
@pytest.mark.slow
def test_images(tmp_path, size, shape, patch_size):
    def write(path, seed):
        write_image(path.with_suffix(".png"), size, seed=seed)

    found, text, splits = _splits_and_model("images", _write(tmp_path, write))
    assert found["preprocessor.shape"] == shape
    assert found["model.modality.modality.patch_size"] == patch_size
    assert text.startswith(
        f"8 files of 2 classes, mostly {size[1]} x {size[0]} pixels in {size[2]} channels"
    )
    # Of four files per class, one is held out for the test, and one for validation.
    sizes = [sum(len(labels) for _, labels in part) for part in splits[:3]]
    assert sizes == [4, 2, 2]


def test_audio(tmp_path):
    def write(path, seed):
        path = path.with_suffix(".wav")
        write_audio(path, num_samples=4000 + 10 * seed, sample_rate=16_000, seed=seed)

    found, text, _ = _splits_and_model("audio", _write(tmp_path, write))
    assert found["preprocessor.sample_rate"] == 16_000
    assert 4120 <= found["preprocessor.num_samples"] <= 4130  # all but the longest
    assert found["model.modality.modality.frame_length"] == 1024
    assert "mostly 0.25 s at 16,000 Hz" in text


def test_audio_of_other_formats_and_rates(tmp_path):
    def write(path, seed):
        path.parent.mkdir(exist_ok=True, parents=True)
        rate = 8_000 if path.stem == "0" else 16_000
        noise = np.random.default_rng(seed).uniform(-1, 1, rate // 4)
        soundfile.write(path.with_suffix(".flac"), noise, rate)

    found, text, _ = _splits_and_model("audio", _write(tmp_path, write))
    assert found["preprocessor.resample"]
    assert found["preprocessor.num_samples"] == 4000
    assert "read up to 0.25 s, resampled, as mel" in text


def test_points(tmp_path):
    def write(path, seed):
        write_points(path.with_suffix(".npy"), 100 + seed, seed=seed)

    found, text, _ = _splits_and_model("points", _write(tmp_path, write))
    assert found["preprocessor.num_points"] == 100
    assert "data.augment" not in found
    assert text.endswith("read in 100 points of 3 numbers")

    def write_colors(path, seed):
        path.parent.mkdir(exist_ok=True, parents=True)
        np.save(path.with_suffix(".npy"), np.ones((2000, 6)) * seed)

    found, *_ = _splits_and_model("points", _write(tmp_path / "colors", write_colors))
    assert found["preprocessor.num_points"] == 1024
    assert found["preprocessor.num_features"] == 3


def test_kinds_have_the_files_of_their_preprocessors():
    for kind in ("images", "audio", "points"):
        preprocessor = recipes.get(kind).preprocessor.cls
        with pytest.raises(ValueError, match="Received: 0 such files") as error:
            settings(kind, "/nowhere")
        endings = re.search(r"end with (.*?)\. Received", str(error.value))[1]
        assert endings.split(", ") == list(preprocessor.suffixes)


def test_number_of_channels_is_that_of_the_files(tmp_path):
    modes = {"P": 3, "L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "1": 1}
    for number, (mode, channels) in enumerate(modes.items()):
        for name in "ab":
            path = tmp_path / mode / name / "0.png"
            path.parent.mkdir(parents=True)
            Image.new(mode, (4, 4), number).save(path)
        found, _ = settings("images", tmp_path / mode)
        preprocessor = ImagePreprocessor(found["preprocessor.shape"])
        assert preprocessor.read(path).shape[-1] == channels, mode
    with Image.open(tmp_path / "P" / "a" / "0.png") as image:
        image.save(tmp_path / "P" / "a" / "0.png", transparency=0)
        image.save(tmp_path / "P" / "b" / "0.png", transparency=0)
    found, _ = settings("images", tmp_path / "P")
    assert (
        ImagePreprocessor(found["preprocessor.shape"])
        .read(tmp_path / "P" / "a" / "0.png")
        .shape
        == found["preprocessor.shape"]
    )


def test_epochs_depend_on_the_number_of_files(tmp_path):
    def write(path, seed):
        write_image(path.with_suffix(".png"), (2, 2, 1))

    few, _ = settings("images", _write(tmp_path, write))
    assert (few["epochs"], few["batch_size"]) == (160, 8)
    many, _ = settings("images", _write(tmp_path, write, num_files=650))
    assert (many["epochs"], many["batch_size"]) == (100, 32)


def test_invalid_folders(tmp_path):
    with pytest.raises(ValueError, match=r"in two classes or more.*Received: 0 such"):
        settings("images", tmp_path)
    for name in "ab":
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "1.png").write_text("no image")
    with pytest.raises(ValueError, match=r"2 invalid files, .*1.png \(cannot id"):
        settings("images", tmp_path)
    with pytest.raises(ValueError, match="must be one of.*Did you mean 'images'"):
        settings("image", tmp_path)
