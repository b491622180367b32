"""Settings of Hugging Face's folders are honored, or refused by file and field."""

import json
import shutil

import numpy as np
import pytest

from keras_perceiver import ImagePreprocessor, PerceiverClassifier
from keras_perceiver.convert.hugging_face_settings import (
    preprocessor_config,
    preprocessor_of,
)
from tests.convert.small import edit_json, write_folder

SHAPE = (8, 8, 3)
PIXELS = np.random.default_rng(0).uniform(0, 255, SHAPE).astype("float32")


@pytest.mark.parametrize(
    ("field", "value", "received"),
    [
        ("d_latents", ..., "none"),
        ("num_latents", "8", "'8'"),
        ("num_blocks", -1, "-1"),
        ("id2label", {"first": "a"}, r"\{'first': 'a'\}"),
    ],
)
def test_wrong_field_of_the_config_is_named(written, tmp_path, field, value, received):
    folder = shutil.copytree(written, tmp_path / "copy")
    edit_json(folder / "config.json", **{field: value})
    with pytest.raises(
        ValueError,
        match=rf"copy/config\.json .*`{field}`. Received: {received}\. Correct",
    ):
        PerceiverClassifier.from_preset(folder)


@pytest.mark.parametrize(
    "names", [{"0": "LABEL_0"}, pytest.param({"0": "x"}, id="named")]
)
def test_model_with_one_logit(tmp_path, names, recwarn):
    model = write_folder(tmp_path / "model", id2label=names)
    assert model.output_shape == (None, 1)
    assert model.class_names is None
    messages = [str(w.message) for w in recwarn if "id2label" in str(w.message)]
    assert len(messages) == (names != {"0": "LABEL_0"})
    saved = json.loads((tmp_path / "model" / "config.json").read_text())
    assert saved["id2label"] == {"0": "LABEL_0"}
    again = PerceiverClassifier.from_preset(tmp_path / "model")
    assert again.output_shape == (None, 1)


def _preprocessor(folder, **settings):
    edit_json(folder / "preprocessor_config.json", {"do_normalize": False}, **settings)
    return preprocessor_of(folder, SHAPE)


@pytest.mark.one_backend
def test_preprocessor_is_as_the_fields_say(tmp_path):
    def scaled(**settings):
        return np.asarray(_preprocessor(tmp_path, **settings).scale(PIXELS))

    np.testing.assert_allclose(scaled(), PIXELS / 255, rtol=1e-5)
    np.testing.assert_allclose(scaled(do_rescale=False), PIXELS, rtol=1e-5)
    np.testing.assert_allclose(scaled(rescale_factor=0.01), PIXELS / 100, rtol=1e-5)
    normalized = (PIXELS / 255 - 0.5) / 0.25
    settings = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    np.testing.assert_allclose(scaled(**settings), normalized, rtol=1e-3, atol=1e-5)
    assert _preprocessor(tmp_path, resample=2).interpolation == "bilinear"
    assert _preprocessor(tmp_path, resample=3).interpolation == "bicubic"
    assert _preprocessor(tmp_path, size=192, crop_size=256).crop_fraction == 0.75


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("resample", 0),
        ("resample", "3"),
        ("do_resize", False),
        ("do_rescale", "no"),
        ("rescale_factor", -1),
        ("size", "224"),
        ("size", {"longest_edge": 224}),
        ("crop_size", 100),
        ("image_mean", [0.5]),
        ("image_std", [0, 1, 1]),
    ],
)
def test_what_the_preprocessor_cannot_do_is_refused(tmp_path, field, value):
    with pytest.raises(
        ValueError, match=rf"`{field}` in .*preprocessor_config\.json must be"
    ):
        _preprocessor(tmp_path, **{field: value})


@pytest.mark.one_backend
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"value_range": (0, 1)},
        {"value_range": (0, 255), "standard_deviation": (1, 2, 3)},
        {"value_range": (-2, 1), "mean": (0.1, 0.2, 0.3)},
    ],
)
def test_scaling_is_written_as_it_is(tmp_path, options):
    preprocessor = ImagePreprocessor(SHAPE, **options)
    again = _preprocessor(tmp_path, **preprocessor_config(preprocessor))
    expected = np.asarray(preprocessor.scale(PIXELS))
    np.testing.assert_allclose(again.scale(PIXELS), expected, rtol=1e-4, atol=1e-5)
