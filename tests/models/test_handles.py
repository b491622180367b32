"""Handles: hubs through their own client, and what they say when something is missing."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from urllib.parse import unquote, urlparse

import keras
import numpy as np
import pytest

from keras_perceiver import (
    Image,
    ImagePreprocessor,
    LearnedPositionEncoding,
    Perceiver,
    PerceiverClassifier,
)
from tests.models.small import SMALL

pytestmark = pytest.mark.integration

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Hub(http.server.BaseHTTPRequestHandler):
    """Answers as Hugging Face's hub does, for one model in a folder."""

    folder = None

    def log_message(self, *_):
        pass

    def _send(self, content, **headers):
        self.send_response(200)
        headers = {"Content-Length": len(content), "X-Repo-Commit": COMMIT, **headers}
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def do_GET(self):
        path = unquote(urlparse(self.path).path)
        files = {p.name: p.read_bytes() for p in self.folder.iterdir()}
        if path.startswith("/api/models/me/model/revision/"):
            self._send(json.dumps({"id": "me/model", "sha": COMMIT}).encode())
        elif path.startswith("/api/models/me/model/tree/"):
            entries = [
                {"type": "file", "path": name, "size": len(x), "oid": _oid(x)}
                for name, x in files.items()
            ]
            self._send(json.dumps(entries).encode())
        elif (
            name := path.rsplit("/", 1)[-1]
        ) in files and "/me/model/resolve/" in path:
            self._send(files[name], ETag=f'"{_oid(files[name])}"')
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_HEAD = do_GET  # noqa: N815


def _oid(content):
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def model():
    encoder = Perceiver(
        Image((8, 8, 3), num_bands=2), num_latents=4, latent_dim=16, num_blocks=1
    )
    return PerceiverClassifier(
        encoder, 3, ImagePreprocessor((8, 8, 3)), class_names=["a", "b", "c"]
    )


@pytest.fixture
def hub(tmp_path, model):
    """The address of a hub that has a model."""
    model.save_to_preset(tmp_path / "model")
    (tmp_path / "model" / "code.py").write_text("raise SystemExit")
    handler = type("Hub", (_Hub,), {"folder": tmp_path / "model"})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


_PROGRAM = """
import sys
import numpy as np
from keras_perceiver import PerceiverClassifier
try:
    model = PerceiverClassifier.from_preset(sys.argv[1])
except Exception as error:
    raise SystemExit(f"{type(error).__name__}: {error}")
print(model.class_names, model.preprocessor.shape)
np.save(sys.argv[2], model.predict(np.ones((1, 8, 8, 3)), verbose=0))
"""


def _run(handle, endpoint, tmp_path, **environment):
    # A separate process, since the client reads its settings when it is imported.
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, handle, tmp_path / "logits.npy"],
        env={
            **os.environ,
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(tmp_path / "cache"),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.fast_on("torch")
def test_hub_and_its_cache(hub, model, tmp_path):
    result = _run("hf://me/model", hub, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["('a',", "'b',", "'c')", "(8,", "8,", "3)"]
    expected = model.predict(np.ones((1, 8, 8, 3)), verbose=0)
    np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), expected)
    names = {path.name for path in (tmp_path / "cache").rglob("*")}
    assert {"config.json", "model.weights.h5"} <= names
    assert "code.py" not in names
    # Without a connection the cache serves.
    result = _run("hf://me/model", hub, tmp_path, HF_HUB_OFFLINE="1")
    assert result.returncode == 0, result.stderr


@pytest.mark.fast_on("torch")
def test_errors_of_a_hub_say_what_to_do(hub, tmp_path):
    result = _run("hf://me/other", hub, tmp_path)
    assert result.returncode == 1
    assert "FileNotFoundError: 'hf://me/other' could not be downloaded" in result.stderr
    result = _run("hf://me/model", "http://127.0.0.1:9", tmp_path, HF_HUB_OFFLINE="1")
    assert "download the files on another machine" in result.stderr
    assert "Traceback" not in result.stderr


def test_own_preset_with_quantized_weights(model, tmp_path):
    model.quantize("int8", filters="^(query|key|value)$")
    model.save_to_preset(tmp_path / "int8")
    again = PerceiverClassifier.from_preset(tmp_path / "int8")
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3))
    expected = model.predict(images, verbose=0)
    np.testing.assert_array_equal(again.predict(images, verbose=0), expected)


@pytest.mark.fast_on("torch")
def test_arguments_of_a_modality_with_weights_reach_the_preprocessor(tmp_path):
    position = LearnedPositionEncoding(4, grid=(8, 8))
    modality = Image((8, 8, 3), projection_dim=5, position_encoding=position)
    model = PerceiverClassifier(
        Perceiver(modality, **SMALL),
        2,
        ImagePreprocessor((8, 8, 3), mean=(0.1, 0.2, 0.3)),
    )
    model.save_to_preset(tmp_path / "model")
    again = PerceiverClassifier.from_preset(
        tmp_path / "model", **{"modality.shape": (12, 10, 3)}
    )
    assert again.input_shape == (None, 12, 10, 3)
    expected = {**model.preprocessor.get_config(), "shape": (12, 10, 3)}
    assert again.preprocessor.get_config() == expected
    for weight, other in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), other.numpy())


def test_other_files_are_not_replaced(model, tmp_path):
    model.save_to_preset(tmp_path)
    model.save_to_preset(tmp_path)  # its own are
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "bert"}')
    with pytest.raises(FileExistsError, match=r"must be new, empty.*of another kind"):
        model.save_to_preset(tmp_path)
    assert config.read_text() == '{"model_type": "bert"}'


def test_own_task_is_loaded_where_its_class_is_registered(tmp_path):
    class Own(PerceiverClassifier):
        pass

    with keras.saving.CustomObjectScope({"mine>Own": Own}):
        Own(Perceiver(Image((8, 8, 3), num_bands=2), **SMALL), 3).save_to_preset(
            tmp_path
        )
        config = json.loads((tmp_path / "config.json").read_text())
        config["registered_name"] = "mine>Own"
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert type(Own.from_preset(tmp_path)) is Own
    with pytest.raises(
        ValueError, match="must be registered.*mine>Own.*Import the mod"
    ):
        Own.from_preset(tmp_path)


@pytest.mark.parametrize("cls", [Perceiver, PerceiverClassifier])
def test_a_folder_does_not_hide_a_built_in_preset(cls, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert cls.from_preset("digits").input_shape == (None, 8, 8, 1)
    model.save_to_preset("flowers")
    assert cls.from_preset("flowers").input_shape == (None, 8, 8, 3)


def test_damaged_weights_are_refused(model, tmp_path):
    model.save_to_preset(tmp_path / "model")
    path = tmp_path / "model" / "model.weights.h5"
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) * 2 // 3] ^= 0x55
    for damaged in (b"", content[: len(content) // 2], bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"weights\.h5 .*Received: other content"):
            PerceiverClassifier.from_preset(tmp_path / "model")
    path.unlink()
    with pytest.raises(ValueError, match=r"weights\.h5 .*Received: no file"):
        PerceiverClassifier.from_preset(tmp_path / "model")
    again = PerceiverClassifier.from_preset(tmp_path / "model", load_weights=False)
    assert again.class_names == model.class_names


def test_argument_that_changes_weights_is_blamed(model, tmp_path):
    model.save_to_preset(tmp_path / "model")
    with pytest.raises(ValueError, match=r"Leave out .*\['num_latents'\] that change"):
        PerceiverClassifier.from_preset(tmp_path / "model", num_latents=9)


@pytest.mark.parametrize("cls", [Perceiver, PerceiverClassifier])
@pytest.mark.one_backend
def test_names_of_another_form(cls):
    for name in (None, 5):
        with pytest.raises(TypeError, match=f"`name` must .* Received: name={name}"):
            cls.from_preset(name)
    with pytest.raises(FileNotFoundError, match="or 'hf://me/model' for a model on"):
        cls.from_preset("me/model")
    with pytest.raises(FileNotFoundError, match=r"`keras\.saving\.load_model`"):
        cls.from_preset("runs/model.keras")
