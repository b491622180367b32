"""Models of `transformers` come in with the same logits, and go back bit by bit."""

import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_perceiver import (
    CrossAttend,
    LearnedQueries,
    Perceiver,
    PerceiverClassifier,
    PerceiverDecoder,
    PositionQueries,
)
from keras_perceiver.convert import save_to_hugging_face
from tests.convert.transformers_models import ARCHITECTURES, IMAGE_SIZES, LARGER, SIZES
from tests.documents import ROOT

pytestmark = pytest.mark.integration


def _transformers(*arguments):
    result = subprocess.run(
        [sys.executable, "-m", "tests.convert.transformers_models", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder with a model of each kind, images and logits."""
    folder = tmp_path_factory.mktemp("transformers")
    _transformers("write", folder)
    return folder


def _load(folders, name, **options):
    size = IMAGE_SIZES[name]
    options = {"modality.shape": (size, size, 3), **options}
    return PerceiverClassifier.from_preset(folders / name, **options)


def _check_logits(model, folder, images="images.npy", logits="logits.npy"):
    expected = np.load(folder / logits)
    logits = model.predict(np.load(folder / images), verbose=0)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logits / scale, expected / scale, atol=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.fast_on("torch")
def test_logits_are_those_of_transformers(folders, name):
    model = _load(folders, name)
    _check_logits(model, folders / name)
    assert model.preprocessor.shape == model.encoder.modality.shape
    assert model.preprocessor.interpolation == "bicubic"


@pytest.mark.fast_on("torch")
def test_learned_positions_of_other_images_are_those_of_transformers(folders):
    model = _load(folders, "learned", **{"modality.shape": (*LARGER, 3)})
    assert model.preprocessor.shape == (*LARGER, 3)
    _check_logits(model, folders / "learned", "larger.npy", "larger_logits.npy")


def test_missing_safetensors_is_named(folders, tmp_path, monkeypatch):
    model = _load(folders, "fourier")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"needs safetensors.*keras_perceiver\[hub\]"):
        save_to_hugging_face(model, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    with pytest.raises(ImportError, match=r"needs safetensors.*keras_perceiver\[hub\]"):
        _load(folders, "fourier")


@pytest.mark.fast_on("torch")
@pytest.mark.parametrize("name", ["learned", "conv", "widths"])
def test_transformers_reads_back_what_it_wrote(folders, name, tmp_path):
    options = {} if name == "learned" else {"modality.shape": (224, 224, 3)}
    model = _load(folders, name, **options)
    save_to_hugging_face(model, tmp_path / name)
    images, logits = folders / name / "images.npy", tmp_path / "logits.npy"
    _transformers("answer", tmp_path / name, images, logits)
    np.testing.assert_array_equal(
        np.load(logits), np.load(images.with_name("logits.npy"))
    )
    again = _load(tmp_path, name)
    _check_logits(again, folders / name)


def test_model_has_its_classes(folders):
    assert _load(folders, "fourier").class_names is None
    assert _load(folders, "widths").class_names == ("crane (0)", "b", "crane (2)")


def test_another_number_of_classes_gives_a_new_head(folders):
    own, other = _load(folders, "fourier"), _load(folders, "fourier", num_classes=3)
    assert other.output_shape == (None, 3)
    for part in ("queries", "cross_attend"):
        weights = getattr(other.decoder, part).weights
        for weight, expected in zip(
            weights, getattr(own.decoder, part).weights, strict=True
        ):
            np.testing.assert_array_equal(weight.numpy(), expected.numpy())
    encoder = Perceiver.from_preset(
        folders / "fourier", **{"modality.shape": (20, 20, 3)}
    )
    for weight, expected in zip(encoder.weights, own.encoder.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected.numpy())
    untrained = _load(folders, "fourier", load_weights=False)
    latents = untrained.encoder.latent_array.latents.numpy()
    assert np.abs(latents).max() <= 0.04  # two standard deviations


def test_form_of_deepmind(folders):
    model = _load(folders, "conv", **{"modality.use_same_padding": True})
    hugging_face = _load(folders, "conv")
    np.testing.assert_array_equal(
        model.encoder.modality.convolution.kernel.numpy(),
        hugging_face.encoder.modality.convolution.kernel.numpy().swapaxes(0, 1),
    )
    assert model.encoder.modality.grid == (12, 12)
    assert hugging_face.encoder.modality.grid == (11, 11)


def test_presets_of_our_own(folders, tmp_path):
    model = _load(folders, "widths")
    model.compile()
    model.save_to_preset(tmp_path / "ours")
    again = PerceiverClassifier.from_preset(tmp_path / "ours")
    _check_logits(again, folders / "widths")
    assert again.class_names == model.class_names
    assert again.preprocessor.get_config() == model.preprocessor.get_config()
    assert not again.compiled
    other = PerceiverClassifier.from_preset(
        tmp_path / "ours", num_classes=2, **{"cross_attend.dropout": 0.3}
    )
    assert other.output_shape == (None, 2)
    layer = other.encoder.iterative_attention.cross_attends[0]
    assert layer.dropout == 0.3
    np.testing.assert_array_equal(
        layer.query.kernel.numpy(),
        model.encoder.iterative_attention.cross_attends[0].query.kernel.numpy(),
    )
    encoder = Perceiver.from_preset(tmp_path / "ours")
    encoder.save_to_preset(tmp_path / "encoder")
    task = PerceiverClassifier.from_preset(tmp_path / "encoder", num_classes=7)
    assert task.output_shape == (None, 7)
    with pytest.raises(ValueError, match="`num_classes` must be given"):
        PerceiverClassifier.from_preset(tmp_path / "encoder")


def _edited(folders, tmp_path, edit, name="fourier"):
    """Returns a copy of a folder whose tensors are changed."""
    import safetensors.numpy

    folder = shutil.copytree(folders / name, tmp_path / "copy")
    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    edit(tensors)
    safetensors.numpy.save_file(tensors, path, metadata={"format": "pt"})
    return folder


LATENTS = "perceiver.embeddings.latents"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop(LATENTS), f"Missing: {LATENTS}.*Without a place.*: none"),
        (lambda t: t.update(more=t[LATENTS] * 1), "Missing: none.*model: more"),
        (
            lambda t: t.update({LATENTS: t[LATENTS][:5].copy()}),
            rf"{LATENTS}: \(5, 16\), expected \(6, 16\)",
        ),
    ],
)
def test_other_tensors_are_refused_by_name(folders, tmp_path, edit, message):
    folder = _edited(folders, tmp_path, edit)
    with pytest.raises(ValueError, match=message):
        PerceiverClassifier.from_preset(folder)


def test_bad_files_are_refused_by_name(folders, tmp_path):
    folder = shutil.copytree(folders / "fourier", tmp_path / "copy")
    path = folder / "model.safetensors"
    content = path.read_bytes()
    for cut in (0, 7, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:cut])
        with pytest.raises(ValueError, match=r"model\.safetensors must be a whole"):
            PerceiverClassifier.from_preset(folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="must contain weights"):
        PerceiverClassifier.from_preset(folder)
    config = json.loads((folder / "config.json").read_text())
    for key, value, message in (
        ("architectures", ["PerceiverForOpticalFlow"], "one of .*Learned"),
        ("model_type", "bert", "must describe a Perceiver.*bert"),
        ("hidden_act", "mish", "`hidden_act` must be one of"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, key: value}))
        with pytest.raises(ValueError, match=message):
            PerceiverClassifier.from_preset(folder)
    for text, message in (
        ("{", "must be a JSON file"),
        ("[]", "must contain a JSON obj"),
    ):
        (folder / "config.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            PerceiverClassifier.from_preset(folder)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        PerceiverClassifier.from_preset(tmp_path / "missing" / "folder")
    with pytest.raises(ValueError, match="begin with 'hf://'"):
        PerceiverClassifier.from_preset("kaggle://a/b")
    with pytest.raises(ValueError, match="must be 'hf://<owner>/<model>'"):
        PerceiverClassifier.from_preset("hf://perceiver")


def test_weights_in_several_files(folders, tmp_path):
    import safetensors.numpy

    folder = shutil.copytree(folders / "fourier", tmp_path / "copy")
    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    names, places = sorted(tensors), {}
    for i, part in enumerate((names[:50], names[50:])):
        name = f"model-{i}.safetensors"
        places |= dict.fromkeys(part, name)
        safetensors.numpy.save_file({n: tensors[n] for n in part}, folder / name)
    path.unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    model = PerceiverClassifier.from_preset(folder, **{"modality.shape": (20, 20, 3)})
    _check_logits(model, folder)
    index.write_text(json.dumps({"weight_map": {"a": "../model-0.safetensors"}}))
    with pytest.raises(ValueError, match="must name files beside it"):
        PerceiverClassifier.from_preset(folder)


def test_gray_images_are_refused(folders):
    with pytest.raises(ValueError, match=r"with 3 channels.*\(20, 20, 1\).*np\.repeat"):
        _load(folders, "fourier", **{"modality.shape": (20, 20, 1)})


def test_what_replaces_another_model_is_whole(folders, tmp_path):
    model = _load(folders, "learned")
    save_to_hugging_face(model, tmp_path / "a")
    assert (tmp_path / "a" / "preprocessor_config.json").exists()
    model.preprocessor = None
    save_to_hugging_face(model, tmp_path / "a")
    assert not (tmp_path / "a" / "preprocessor_config.json").exists()
    model.save_to_preset(tmp_path / "b")
    with pytest.raises(FileExistsError, match="of another kind"):
        save_to_hugging_face(model, tmp_path / "b")
    model.quantize("int8", filters="^(query|key|value)$")
    with pytest.raises(ValueError, match="a model quantized to int8"):
        save_to_hugging_face(model, tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("queries", "settings", "received"),
    [
        (LearnedQueries(1, 16), {"num_heads": 4}, "num_heads=4"),
        (LearnedQueries(1, 16), {"num_heads": 1, "activation": "relu"}, "activation="),
        (
            LearnedQueries(1, 16),
            {"num_heads": 1, "use_query_residual": False},
            "residual",
        ),
        (LearnedQueries(1, 16), {"num_heads": 1, "widening_factor": 2}, "widening"),
        (LearnedQueries(1, 8), {"num_heads": 1}, "queries.query_dim=8, expected 16"),
        (PositionQueries((1,), num_bands=4), {"num_heads": 1}, "PositionQueries"),
    ],
)
def test_other_decoders_are_not_written(folders, tmp_path, queries, settings, received):
    encoder = _load(folders, "learned").encoder
    decoder = PerceiverDecoder(queries, CrossAttend(**settings))
    model = PerceiverClassifier(encoder, 3, decoder=decoder)
    with pytest.raises(ValueError, match=f"must have such a model.*{received}"):
        save_to_hugging_face(model, tmp_path / "copy")


def test_model_without_such_settings_is_not_written(tmp_path):
    model = PerceiverClassifier.from_preset("digits")
    with pytest.raises(ValueError, match="`transformers` must have such a model"):
        save_to_hugging_face(model, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_sizes_of_the_file_are_those_of_the_model(folders):
    model = _load(folders, "fourier")
    assert model.encoder.latent_array.num_latents == SIZES["num_latents"]
    assert model.encoder.iterative_attention.num_cross_attends == 1
    assert keras.backend.is_float_dtype(model.output.dtype)
