"""Every command reports a damaged file in one line with its name and the fix."""

import json
import zipfile

import keras
import numpy as np
import pytest

from keras_perceiver import Image, Perceiver, PerceiverClassifier, SelfAttend
from keras_perceiver.cli import arguments, main
from keras_perceiver.serving.client import read_arrays
from tests.cli.damage import cut, flip, write_archive

pytestmark = pytest.mark.one_backend

COMMANDS = {
    "evaluate": ["--recipe", "digits"],
    "export": ["--to", "exports"],
    "predict": ["."],
}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # `export` changes it for this process.
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """Returns the bytes of a saved model."""
    encoder = Perceiver(
        Image((8, 8, 1), num_bands=2),
        num_latents=2,
        latent_dim=8,
        num_blocks=1,
        num_self_attends_per_block=1,
        self_attend=SelfAttend(num_heads=1),
    )
    model = PerceiverClassifier(encoder, 10, class_names=list("0123456789"))
    path = tmp_path_factory.mktemp("models") / "model.keras"
    model.save(path)
    return path.read_bytes()


def _error(*words):
    with pytest.raises(SystemExit) as error:
        main(list(map(str, words)))
    text = str(error.value)
    assert text.startswith("error: ")
    assert "\n" not in text
    return text


@pytest.mark.parametrize("command", COMMANDS)
def test_damaged_models(command, tmp_path, content):
    path = tmp_path / "model.keras"

    def damaged(change):
        path.write_bytes(content)
        change(path)
        text = _error(command, tmp_path, *COMMANDS[command])
        assert f"{str(path)!r}, which is damaged" in text
        assert text.endswith("Copy it again, or train it again.")
        return text

    assert "model.weights.h5 in it has changed" in damaged(lambda p: flip(p, 0.5))
    damaged(lambda p: cut(p, 0.6))
    damaged(lambda p: p.write_text(""))
    damaged(lambda p: p.write_text("text"))
    assert "config.json is missing" in damaged(lambda p: _zip(p, {"a": "b"}))


def _zip(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)


def test_flipped_bits_of_weights_are_detected(tmp_path, content):
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        weights = archive.getinfo("model.weights.h5")
    start = weights.header_offset + 100
    rng = np.random.default_rng(0)
    for place in rng.integers(start, start + weights.compress_size - 100, 40):
        path.write_bytes(content)
        flip(path, place / (len(content) - 1))
        with pytest.raises(ValueError, match="model.weights.h5 in it has changed"):
            arguments.model_file(path)


@pytest.mark.parametrize("command", COMMANDS)
def test_files_that_keras_cannot_load(command, tmp_path, content):
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = files["config.json"].decode()
    foreign = config.replace('"PerceiverClassifier"', '"Unknown"').replace(
        ">PerceiverClassifier", ">Unknown"
    )
    for text in (
        foreign,
        "{}",
        "[",
        config.replace('"latent_dim": 8', '"latent_dim": 9'),
    ):
        _zip(path, {**files, "config.json": text})
        error = _error(command, tmp_path, *COMMANDS[command])
        assert f"must be able to load the model. Received: {str(path)!r}: " in error
        assert len(error) < 700
    write_archive(path)
    assert "must be able to load" in _error(command, tmp_path, *COMMANDS[command])


@pytest.mark.parametrize("command", COMMANDS)
def test_models_of_other_packages(command, tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    model.save(tmp_path / "model.keras")
    text = _error(command, tmp_path, *COMMANDS[command])
    rule = "a task of" if command == "evaluate" else "a `Perceiver` or a task of"
    assert f"The model must be {rule} this package" in text
    assert "model.keras', a Sequential" in text


@pytest.mark.parametrize("text", ["", '{"recipe": "dig', "[]", '{"recipe": 3}', "\x00"])
def test_damaged_metrics(tmp_path, content, text):
    (tmp_path / "model.keras").write_bytes(content)
    (tmp_path / "metrics.json").write_text(text)
    for words in (["evaluate", tmp_path], ["results", tmp_path]):
        assert str(tmp_path / "metrics.json") in _error(*words)


def test_damaged_history(tmp_path):
    run = {"recipe": "digits", "backend": "jax", "precision": "float32", "epochs": 1}
    run |= {"batch_size": 3, "seed": 0, "test_accuracy": 0.5, "train_seconds": 1.0}
    (tmp_path / "metrics.json").write_text(json.dumps(run))
    path = tmp_path / "history.csv"
    header = "epoch,accuracy,val_accuracy\n"
    for text in ("\x00", f"{header}1,0.5", f"{header}1,0.5,x", "epoch\n1\n", "\xff"):
        path.write_text(text, encoding="latin-1")
        error = _error("results", tmp_path, "--curves", tmp_path / "curves.png")
        assert f"Received: {str(path)!r} (" in error
    path.unlink()
    assert str(path) in _error("results", tmp_path, "--curves", tmp_path / "curves.png")


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_damaged_arrays(tmp_path, content, name):
    (tmp_path / "model.keras").write_bytes(content)
    path = tmp_path / name
    save = np.save if name == "a.npy" else np.savez
    for change in (
        lambda p: cut(p, 0.7),
        lambda p: p.write_text(""),
        lambda p: p.write_text("text"),
        lambda p: save(p, np.array([{"a": 1}], object)),
    ):
        save(path, np.zeros((3, 8, 8, 1), "float32"))
        change(path)
        with pytest.raises(ValueError, match=f"in a file of NumPy. Received: '{path}'"):
            read_arrays(path)
        assert str(path) in _error(
            "serve-client", "localhost:1", "digits", path, "--rest"
        )
    assert str(path) in _error("predict", tmp_path, path)
    save(path, np.float32(3))
    assert "must have the same length" in _error("predict", tmp_path, path)
