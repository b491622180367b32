"""Files that each backend has written once, and which must load forever."""

import keras
import numpy as np
import pytest

from tests.goldens.write import FOLDER, predictions

FILES = sorted(path.stem for path in FOLDER.glob("*.keras"))
# Relative to the largest output. A layer of the second model computes in bfloat16.
TOLERANCES = {"classifier": 1e-5, "multi_label": 3e-2}


def _golden(stem):
    """Returns the path of a golden file, its inputs and its outputs."""
    arrays = dict(np.load(FOLDER / f"{stem}.npz"))
    outputs = arrays.pop("outputs")
    tolerance = TOLERANCES[stem.rsplit("_", 1)[0]] * np.abs(outputs).max()
    return FOLDER / f"{stem}.keras", arrays, outputs, tolerance


def test_there_is_a_file_of_each_backend_for_each_model():
    backends = ("jax", "tensorflow", "torch")
    assert sorted(f"{name}_{b}" for name in TOLERANCES for b in backends) == FILES


@pytest.mark.parametrize("stem", FILES)
def test_golden_model_predicts_as_it_did(stem):
    path, x, expected, tolerance = _golden(stem)
    model = keras.saving.load_model(path)
    np.testing.assert_allclose(predictions(model, x), expected, atol=tolerance)
    assert type(model.optimizer).__name__ == "Lamb"
    assert type(model.loss) is type(model.default_loss())
    assert model.get_compile_config()["jit_compile"] == "auto"


@pytest.mark.fast_on("torch")
def test_golden_model_has_its_inner_settings_and_trains():
    path, x, _, _ = _golden("classifier_jax")
    model = keras.saving.load_model(path)
    trunk = model.encoder.iterative_attention
    frozen, trained = trunk.cross_attends
    assert not frozen.trainable
    self_attend = trunk.latent_transformers[0].self_attends[0]
    assert self_attend.value.quantization_mode == "int8"
    assert model.class_names == ("ant", "bee", "cat")
    assert model.preprocessor.get_config()["shape"] == (4, 6, 3)
    before = [layer.query.kernel.numpy() for layer in (frozen, trained)]
    model.fit(x["image"], np.arange(3), verbose=0)
    after = [layer.query.kernel.numpy() for layer in (frozen, trained)]
    np.testing.assert_array_equal(before[0], after[0])
    assert (before[1] != after[1]).any()


if keras.backend.backend() == "tensorflow":

    @pytest.mark.parametrize("backend", ["jax", "tensorflow", "torch"])
    def test_golden_saved_model_answers_as_it_did(backend):
        import tensorflow as tf

        _, x, expected, tolerance = _golden(f"classifier_{backend}")
        served = tf.saved_model.load(FOLDER / f"classifier_{backend}" / "1")
        answers = served.signatures["serving_default"](image=tf.constant(x["image"]))
        np.testing.assert_allclose(answers["logits"], expected, atol=tolerance)
        assert set(answers["classes"].numpy()) <= {b"ant", b"bee", b"cat"}
