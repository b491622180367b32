import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_perceiver import Image, Perceiver, PerceiverClassifier, serving


def _model(use_mask=False, dtype=None):
    encoder = Perceiver(
        Image((4, 6, 3), num_bands=2, use_mask=use_mask),
        num_latents=5,
        latent_dim=16,
        num_blocks=1,
        num_self_attends_per_block=1,
        dtype=dtype,
    )
    return PerceiverClassifier(encoder, num_classes=4)


def test_versions_count_up_and_are_never_overwritten(tmp_path):
    half, masked = _model(dtype="mixed_bfloat16"), _model(use_mask=True)
    assert serving.export_for_serving(half, tmp_path) == tmp_path / "1"
    assert serving.export_for_serving(masked, tmp_path) == tmp_path / "2"
    before = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*"))
    with pytest.raises(
        FileExistsError, match="never overwritten.*version=2.*number, 3"
    ):
        serving.export_for_serving(masked, tmp_path, version=2)
    assert sorted(p.stat().st_mtime_ns for p in tmp_path.rglob("*")) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
    _check_signature(masked, tmp_path / "2")


def _check_signature(model, path):
    """Named inputs, any batch size, the model's own logits."""
    signature = tf.saved_model.load(path).signatures["serving_default"]
    inputs = signature.structured_input_signature[1]
    assert set(inputs) == {"image", "image_mask"}
    rng = np.random.default_rng(0)
    for batch in (1, 3):
        images = rng.normal(size=(batch, 4, 6, 3)).astype("float32")
        mask = rng.random((batch, 4, 6)) > 0.4
        (logits,) = signature(
            image=tf.constant(images), image_mask=tf.constant(mask)
        ).values()
        expected = model.predict({"image": images, "image_mask": mask}, verbose=0)
        np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_nothing_is_published_when_the_check_fails(tmp_path, monkeypatch):
    model = _model()
    honest = type(model).predict
    # A `predict` that disagrees with the exported weights.
    monkeypatch.setattr(
        type(model), "predict", lambda *args, **kwargs: honest(*args, **kwargs) + 1e-3
    )
    with pytest.raises(RuntimeError, match=r"nothing was published(.|\n)*differs"):
        serving.export_for_serving(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_export_that_is_overtaken_takes_the_next_number(tmp_path):
    folder, mine = tmp_path / "exports", tmp_path / "mine"
    for path in (folder / "1", folder / "2", mine):
        path.mkdir(parents=True)
        (path / "saved_model.pb").write_text(path.name)
    with pytest.raises(OSError, match="not empty"):
        serving._publish(mine, folder, version=1, is_chosen=True)
    assert serving._publish(mine, folder, version=1, is_chosen=False) == folder / "3"
    assert (folder / "3" / "saved_model.pb").read_text() == "mine"
    assert (folder / "1" / "saved_model.pb").read_text() == "1"


@pytest.mark.parametrize("version", [0, -1, "1", 1.5])
def test_bad_versions(version, tmp_path):
    with pytest.raises(ValueError, match="`version` must be a positive integer"):
        serving.export_for_serving(object(), tmp_path, version=version)


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        PermissionError, match="`folder` must be a folder.*Choose another"
    ):
        serving.export_for_serving(object(), tmp_path / "file" / "exports")


def test_only_a_file_of_the_safe_kind_is_loaded(tmp_path):
    inputs = keras.Input((2,))
    unsafe = keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs))
    unsafe.save(tmp_path / "unsafe.keras")
    with pytest.raises(ValueError, match=r"(?s)[Ll]ambda.*unsafe"):
        serving._export_file(tmp_path / "unsafe.keras", tmp_path / "out")
    assert not (tmp_path / "out").exists()
