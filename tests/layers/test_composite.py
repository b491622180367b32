import keras
import numpy as np
import pytest

from keras_perceiver import CrossAttend, IterativeAttention, SelfAttend
from tests.layers.blocks import latents_and_inputs


def _model():
    """A model of one composite layer, and its inputs."""
    arrays = latents_and_inputs()
    inputs = [keras.Input(x.shape[1:]) for x in arrays]
    trunk = IterativeAttention(
        num_blocks=2,
        num_self_attends_per_block=1,
        cross_attend=CrossAttend(qk_dim=8),
        self_attend=SelfAttend(num_heads=2),
    )
    return keras.Model(inputs, trunk(*inputs)), trunk, list(arrays)


def _saved_and_loaded(model, tmp_path):
    model.save(tmp_path / "model.keras")
    return keras.saving.load_model(tmp_path / "model.keras")


def test_frozen_and_recast_inner_layers_are_restored(tmp_path):
    model, trunk, arrays = _model()
    trunk.cross_attends[0].trainable = False
    trunk.latent_transformers[0].self_attends[0].query.trainable = False
    trunk.cross_attends[1].mlp_hidden.dtype_policy = "mixed_bfloat16"
    settings = trunk.get_config()["inner_settings"]
    assert settings["latent_transformer_0/self_attend_0/query"] == {"trainable": False}
    loaded = _saved_and_loaded(model, tmp_path)
    again = loaded.layers[-1]
    assert again.get_config() == trunk.get_config()
    assert [w.path for w in again.trainable_weights] == [
        w.path for w in trunk.trainable_weights
    ]
    assert again.cross_attends[1].mlp_hidden.compute_dtype == "bfloat16"
    np.testing.assert_array_equal(
        loaded.predict(arrays, verbose=0), model.predict(arrays, verbose=0)
    )
    # And again from the loaded model.
    twice = type(again).from_config(again.get_config())
    assert twice.get_config() == again.get_config()


@pytest.mark.parametrize(("mode", "filters"), [("int8", None), ("int4", "^value$")])
@pytest.mark.fast_on("torch")
def test_quantized_layers_are_restored(mode, filters, tmp_path):
    model, trunk, arrays = _model()
    before = model.predict(arrays, verbose=0)
    for layer in trunk._flatten_layers():
        is_dense = isinstance(layer, keras.layers.Dense)
        if is_dense and filters in (None, f"^{layer.name}$"):
            layer.quantize(mode)
    model.make_predict_function(force=True)  # the original model is unchanged
    expected = model.predict(arrays, verbose=0)
    error = np.abs(expected - before).max() / np.abs(before).max()
    assert 0 < error < (0.03 if mode == "int8" else 0.3)
    loaded = _saved_and_loaded(model, tmp_path)
    assert loaded.layers[-1].cross_attends[0].value.quantization_mode == mode
    is_key = loaded.layers[-1].cross_attends[0].key.quantization_mode == mode
    assert is_key == (filters is None)
    np.testing.assert_array_equal(loaded.predict(arrays, verbose=0), expected)


def test_unknown_inner_layers_are_refused():
    _, trunk, arrays = _model()
    config = {**trunk.get_config(), "inner_settings": {"head": {"trainable": False}}}
    again = IterativeAttention.from_config(config)
    with pytest.raises(ValueError, match=r"Received: \['head'\].*cross_attend_0/key"):
        again.build(*(x.shape for x in arrays))
