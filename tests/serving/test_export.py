"""The whole export, which is published after verification."""

import json
import re
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from keras_perceiver import (
    AudioPreprocessor,
    Image,
    ImagePreprocessor,
    Perceiver,
    PerceiverClassifier,
    PointCloud,
    PointCloudPreprocessor,
    export_for_serving,
    flops,
    serving,
)
from keras_perceiver.serving import versions
from keras_perceiver.serving.card import weights_hash
from tests.serving import models

pytestmark = pytest.mark.integration


@pytest.mark.fast_on("tensorflow")
def test_whole_export(tmp_path, capsys):
    """On every backend: two modalities, quantized weights, every signature."""
    model = models.both_model()
    inputs = models.random_arrays(3, num_samples=21)
    labels = np.array([0, 1, 3])
    folder = tmp_path / "animals"
    path = export_for_serving(
        model,
        folder,
        weights="int8",
        metrics={"recipe": "zoo", "test_accuracy": 0.5},
        test_data=[(inputs, labels)],
    )
    assert path == folder / "1"
    # Lengths are dynamic, so requests cannot be batched.
    assert {p.name for p in folder.iterdir()} == {"1", "models.config"}
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((folder / "models.config").read_text(), config)
    assert config.model_config_list.config[0].name == "animals"
    assert config.model_config_list.config[0].base_path == "/models/animals"

    signatures = tf.saved_model.load(path).signatures
    answers = signatures["serving_default"](**inputs)
    logits = model.predict(inputs, verbose=0)
    difference = np.abs(answers["logits"].numpy() - logits).max()
    assert 1e-5 < difference < 0.1 * np.abs(logits).max()
    assert set(signatures) == {"serving_default", "encoded"}

    card = json.loads((path / "model_card.json").read_text())
    assert card["weights"]["sha256"] == weights_hash(model)
    assert card["weights"]["stored_as"] == "int8"
    right = (logits.argmax(-1) == labels).mean()
    assert card["weights"]["test_accuracy_float32"] == pytest.approx(right)
    assert 0 < card["weights"]["largest_difference"] < 0.2
    assert card["parameters"] == model.count_params()
    assert card["flops_per_example"] == flops(model)
    assert card["backend"] == keras.backend.backend()
    assert (card["recipe"], card["labels"]) == ("zoo", models.LABELS)
    assert card["signatures"]["serving_default"]["audio"]["shape"] == [None, None]
    assert card["signatures"]["encoded"]["audio"]["files"]["sample_rate"] == 8000
    printed = capsys.readouterr().out
    for note, kind in zip(
        card["notes"],
        ("`image` a PNG, JPEG or GIF", "`audio` a 16-bit WAV of 8000 hertz"),
        strict=True,
    ):
        assert note in printed.splitlines()
        assert re.search(rf"takes as {kind}.*rejected: convert them, or send ar", note)
    assert re.search(
        r"weights in int8: outputs of up to .* of 10 random examples keep their classes, "
        r"test accuracy \d\.\d{4} \(in float32 \d\.\d{4}\)",
        printed,
    )


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.filterwarnings("ignore:.*does not have a `quantize")
def test_quantized_model(tmp_path):
    model = models.image_model()
    model.quantize("int8")
    images = models.random_arrays(3)["image"]
    path = export_for_serving(model, tmp_path / "animals")
    served = tf.saved_model.load(path).signatures["serving_default"]
    expected = model.predict(images, verbose=0)
    logits = served(image=images)["logits"]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.one_backend
def test_versions_count_up_and_are_never_overwritten(tmp_path, monkeypatch):
    monkeypatch.setattr(
        sys.modules["keras_perceiver.serving.export"], "run_python", _no_run
    )
    model = models.image_model(dtype="mixed_bfloat16")
    assert export_for_serving(model, tmp_path, preprocessor={}) == tmp_path / "1"
    assert export_for_serving(model, tmp_path, preprocessor={}) == tmp_path / "2"
    before = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*"))
    with pytest.raises(
        FileExistsError, match="never overwritten.*version=2.*number, 3"
    ):
        export_for_serving(model, tmp_path, version=2)
    assert sorted(p.stat().st_mtime_ns for p in tmp_path.rglob("*")) == before
    names = ["1", "2", "batching.config", "models.config"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    batching = (tmp_path / "batching.config").read_text()
    assert re.findall(r"allowed_batch_sizes: (\d+)", batching) == ["1", "2", "4", "8"]
    assert "max_batch_size { value: 8 }" in batching


def _no_run(*arguments):
    """Disables the check, which other tests cover."""


@pytest.mark.slow
def test_nothing_is_published_when_the_check_fails(tmp_path, monkeypatch):
    model = models.image_model()
    honest = type(model).predict
    # A `predict` that differs from the exported weights.
    monkeypatch.setattr(
        type(model), "predict", lambda *args, **kwargs: honest(*args, **kwargs) + 1e-3
    )
    with pytest.raises(RuntimeError, match=r"nothing was published(.|\n)*differs"):
        export_for_serving(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.one_backend
def test_nothing_is_published_when_it_is_interrupted(tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    module = sys.modules["keras_perceiver.serving.export"]
    monkeypatch.setattr(module, "run_python", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_for_serving(models.image_model(), tmp_path, preprocessor={})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"weights": "int4"}, ValueError, "`weights` must be one of"),
        ({"version": 0}, ValueError, "`version` must be a positive integer"),
        ({"preprocessor": "png"}, TypeError, "must be a `Preprocessor`.*Pass"),
        (
            {"preprocessor": {"picture": ImagePreprocessor((6, 8, 3))}},
            ValueError,
            r"one of the modalities \['image'\].*'picture'",
        ),
        (
            {"preprocessor": ImagePreprocessor((6, 8, 1))},
            ValueError,
            r"valid inputs.*'image', shape \(6, 8, 1\) for \(6, 8, 3\)\. Change",
        ),
        (
            {"preprocessor": AudioPreprocessor(8000)},
            ValueError,
            "shape .*, a mask where.*sample_rate=8000 for None",
        ),
    ],
)
def test_bad_arguments_are_found_before_anything_is_written(
    arguments, error, match, tmp_path
):
    with pytest.raises(error, match=match):
        export_for_serving(models.image_model(), tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.one_backend
def test_other_models_are_refused(tmp_path):
    with pytest.raises(TypeError, match=r"`model` must be a `Perceiver`"):
        export_for_serving(keras.Sequential([keras.Input((2,))]), tmp_path)


@pytest.mark.one_backend
def test_an_encoder_has_no_score(tmp_path):
    encoder = models.image_model().encoder
    with pytest.raises(ValueError, match="needs a task.*Perceiver.*Remove"):
        export_for_serving(encoder, tmp_path, weights="int8", test_data=[])


@pytest.mark.one_backend
def test_only_safe_files_are_loaded(tmp_path):
    from keras_perceiver.serving import job

    inputs = keras.Input((2,))
    unsafe = keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs))
    unsafe.save(tmp_path / "model.keras")
    (tmp_path / "job.json").write_text("{}")
    with pytest.raises(ValueError, match=r"(?s)[Ll]ambda.*unsafe"):
        job.run_file(tmp_path)


@pytest.mark.fast_on("tensorflow")
def test_a_model_is_served_on_the_values_that_it_was_trained_on(tmp_path, capsys):
    """A value range of 0..255 is kept in the file of the model, and in the card."""
    preprocessor = ImagePreprocessor((6, 8, 3), value_range=(0, 255))
    trained = models.image_model()
    trained.preprocessor = preprocessor
    trained.save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    path = export_for_serving(model, tmp_path / "a")
    assert "no signature" not in capsys.readouterr().out
    signature = tf.saved_model.load(path).signatures["encoded"]
    content = models.png((6, 8, 3))
    answers = signature(image=tf.constant([content]))
    pixels = tf.io.decode_png(content).numpy().astype("float32")
    expected = trained.predict(pixels[None], verbose=0)
    np.testing.assert_allclose(answers["logits"], expected, rtol=1e-4, atol=1e-4)
    others = trained.predict(pixels[None] / 127.5 - 1, verbose=0)
    assert np.abs(answers["logits"].numpy() - others).max() > 1e-2
    card = json.loads((path / "model_card.json").read_text())
    assert card["signatures"]["encoded"]["image"]["files"] == {
        "preprocessor": "ImagePreprocessor",
        "shape": [6, 8, 3],
        "value_range": [0, 255],
        "crop_to_aspect_ratio": False,
        "crop_fraction": 1.0,
        "interpolation": "bilinear",
        "mean": None,
        "standard_deviation": None,
        "max_pixels": 89_478_485,
    }


@pytest.mark.one_backend
@pytest.mark.parametrize(
    "has_one_without_graph_form", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_no_signature_of_files_without_a_preprocessor(
    has_one_without_graph_form, tmp_path, capsys
):
    preprocessor, modality = None, Image((6, 8, 3), num_bands=2)
    if has_one_without_graph_form:
        preprocessor = PointCloudPreprocessor(7)
        modality = PointCloud(7, num_bands=2)
    encoder = Perceiver(modality, num_latents=3, latent_dim=8, num_blocks=1)
    model = PerceiverClassifier(encoder, 4, preprocessor)
    path = export_for_serving(model, tmp_path)
    assert set(tf.saved_model.load(path).signatures) == {"serving_default"}
    line = capsys.readouterr().out.strip()
    assert "no signature `encoded`" in line
    assert "\n" not in line
    assert json.loads((path / "model_card.json").read_text())["notes"] == [line]


# tf2onnx imports deprecated names of its dependencies.
@pytest.mark.one_backend
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_one_file(format, tmp_path):
    # LiteRT's runtime lacks an operation for masks.
    modality = Image((4, 6, 3), num_bands=2, use_mask=format == "onnx")
    model = Perceiver(
        modality,
        num_latents=5,
        latent_dim=16,
        num_blocks=1,
        num_self_attends_per_block=1,
    )
    path = tmp_path / f"model{versions.FORMATS[format]}"
    # Published only if the outputs of the runtime match `predict`.
    assert serving.export_file(model, path, format) == path
    assert path.stat().st_size > 4 * model.count_params()
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileExistsError, match="never overwritten"):
        serving.export_file(model, path, format)
    with pytest.raises(ValueError, match="must end with"):
        serving.export_file(model, tmp_path / "model.pb", format)
    with pytest.raises(ValueError, match="`format` must be one of"):
        serving.export_file(model, path, "tf")
