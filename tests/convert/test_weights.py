"""Weights that are damaged, or do not fit, are refused with the right cause."""

import os
import pickle
import shutil

import keras
import numpy as np
import pytest

from keras_perceiver import PerceiverClassifier
from keras_perceiver.convert import save_to_hugging_face
from keras_perceiver.convert.files import TorchFiles

LATENTS = "perceiver.embeddings.latents"


@pytest.mark.parametrize(
    "edit",
    [lambda x: x * np.nan, lambda x: x.astype("int32"), lambda x: x.astype(bool)],
)
def test_weights_must_be_finite_floats(written, tmp_path, edit):
    import safetensors.numpy

    folder = shutil.copytree(written, tmp_path / "copy")
    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    tensors[LATENTS] = edit(tensors[LATENTS])
    safetensors.numpy.save_file(tensors, path)
    with pytest.raises(
        ValueError, match=rf"finite floats.*integers in {LATENTS}\. Get"
    ):
        PerceiverClassifier.from_preset(folder)


def test_argument_that_changes_weights_is_blamed(written):
    fix = r"Leave out those of the arguments \['num_latents'\]"
    with pytest.raises(ValueError, match=fix):
        PerceiverClassifier.from_preset(written, num_latents=9)
    model = PerceiverClassifier.from_preset(written, load_weights=False, num_latents=9)
    assert model.encoder.latent_array.num_latents == 9


def test_number_of_classes_must_be_positive(written):
    with pytest.raises(ValueError, match="`num_classes` must be a positive integer"):
        PerceiverClassifier.from_preset(written, num_classes=0)


def test_adapters_are_merged(written, tmp_path):
    model = PerceiverClassifier.from_preset(written)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    before = model.predict(images, verbose=0)
    model.encoder.enable_lora(2)
    for weight in model.encoder.trainable_weights:
        weight.assign(np.full(weight.shape, 0.3))
    expected = model.predict(images, verbose=0)
    assert np.abs(expected - before).max() > 1e-3
    save_to_hugging_face(model, tmp_path / "merged")
    again = PerceiverClassifier.from_preset(tmp_path / "merged")
    np.testing.assert_allclose(
        again.predict(images, verbose=0), expected, rtol=1e-4, atol=1e-5
    )
    assert model.encoder.trainable_weights  # it keeps its adapters


class _Program:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


if keras.backend.backend() == "torch":  # which TensorFlow cannot share a process with

    def test_files_of_pytorch_hold_tensors_only(tmp_path):
        import torch

        path, place = tmp_path / "pytorch_model.bin", tmp_path / "made"
        torch.save({"a": _Program(place)}, path)
        contents = [path.read_bytes(), b"", pickle.dumps(_Program(place))]
        for content in ([1, 2], {"a": 3}):
            torch.save(content, path)
            contents.append(path.read_bytes())
        for content in contents:
            path.write_bytes(content)
            with pytest.raises(
                ValueError, match=r"bin must be a file of PyTorch"
            ) as error:
                TorchFiles(tmp_path, [path.name])
            assert "weights_only" not in str(error.value)
            assert error.value.__cause__ is None
        assert not place.exists()
        with pytest.raises(ValueError, match="Received: no such file"):
            TorchFiles(tmp_path, ["pytorch_model-1.bin"])
        torch.save(
            {"a": torch.ones(2, dtype=torch.bfloat16), "b": torch.arange(2)}, path
        )
        found = TorchFiles(tmp_path, [path.name])
        assert (found["a"].dtype, found["b"].dtype) == ("float32", "int64")
