import inspect
import json

import keras
import numpy as np
import pytest

from keras_perceiver import (
    Audio,
    ByteArray,
    CrossAttend,
    Image,
    LearnedPositionEncoding,
    Perceiver,
    PerceiverClassifier,
    SelfAttend,
)


def _encoder(modality=None, **settings):
    settings = {
        "num_latents": 5,
        "latent_dim": 16,
        "num_blocks": 2,
        "num_self_attends_per_block": 1,
        **settings,
    }
    return Perceiver(modality or Image((4, 6, 3), num_bands=2), **settings)


def _images(batch=2):
    return np.random.default_rng(0).normal(size=(batch, 4, 6, 3)).astype("float32")


def test_outputs_latents_for_any_batch_size():
    encoder = _encoder()
    assert encoder.output_shape == (None, 5, 16)
    for batch in (1, 3):
        assert encoder.predict(_images(batch), verbose=0).shape == (batch, 5, 16)


def test_config_holds_every_argument():
    settings = {
        "num_latents": 6,
        "latent_dim": 24,
        "num_blocks": 3,
        "num_self_attends_per_block": 2,
        "num_cross_attends": 2,
        "share_weights": False,
        "use_cross_attends_at_start": True,
        "use_remat": True,
        "name": "reader",
        "trainable": False,
    }
    templates = {
        "cross_attend": CrossAttend(num_heads=3, qk_dim=9, v_dim=6, widening_factor=2),
        "self_attend": SelfAttend(num_heads=4, qk_dim=12, v_dim=8, widening_factor=3),
    }
    byte_array = ByteArray(Image((4, 6, 3), num_bands=2), element_dropout=0.2)
    encoder = _encoder(byte_array, **settings, **templates)
    config = encoder.get_config()
    assert {key: config[key] for key in settings} == settings
    for name, template in (*templates.items(), ("modality", byte_array)):
        assert config[name]["config"] == template.get_config()
    again = Perceiver.from_config(config)
    assert again.get_config() == config
    shapes = [weight.shape for weight in encoder.weights]
    assert [weight.shape for weight in again.weights] == shapes
    # Each of these widths is in its place.
    cross = again.iterative_attention.cross_attends[0]
    own = again.iterative_attention.latent_transformers[2].self_attends[1]
    assert cross.query.kernel.shape == (24, 9)
    assert cross.value.kernel.shape == (3 + 10, 6)
    assert cross.mlp_hidden.kernel.shape == (24, 48)
    assert own.key.kernel.shape == (24, 12)
    assert own.output_projection.kernel.shape == (8, 24)
    assert own.mlp_hidden.kernel.shape == (24, 72)
    # Frozen as part of another model as well.
    inputs = keras.Input((4, 6, 3))
    assert not keras.Model(inputs, again(inputs)).trainable_weights


def test_constructor_has_twelve_arguments():
    parameters = inspect.signature(Perceiver.__init__).parameters.values()
    named = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert len(named) == 1 + 12


def test_encode_also_returns_the_inputs():
    encoder = _encoder()
    encoded = encoder.encode(_images())
    np.testing.assert_array_equal(_numpy(encoded.latents), _numpy(encoder(_images())))
    elements = encoder.byte_array(_images())
    np.testing.assert_array_equal(_numpy(encoded.inputs), _numpy(elements))
    assert encoded.inputs_mask is None


def test_encode_is_one_node_of_another_model_with_its_mask(tmp_path):
    modalities = {
        "image": Image((4, 6, 3), num_bands=2),
        "audio": Audio(40, 8000, patch_size=5, num_bands=2, use_mask=True),
    }
    encoder = _encoder(modalities)
    encoded = encoder.encode(encoder.input)
    outputs = keras.ops.sum(
        keras.ops.where(encoded.inputs_mask[..., None], encoded.inputs, 0), axis=1
    )
    model = keras.Model(encoder.input, [encoded.latents, outputs])
    assert [layer.name for layer in model.layers].count(encoder.name) == 1
    x = {
        "image": _images(),
        "audio": np.ones((2, 40), "float32"),
        "audio_mask": np.arange(40) < np.array([[20], [0]]),
    }
    latents, sums = model.predict(x, verbose=0)
    np.testing.assert_array_equal(latents, encoder.predict(x, verbose=0))
    elements, mask = encoder.byte_array(x)
    expected = (_numpy(elements) * _numpy(mask)[..., None]).sum(1)
    np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-5)
    assert model.trainable_weights
    assert len(model.weights) == len(encoder.weights)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
def test_frozen_and_quantized_layers_are_restored(tmp_path):
    encoder = _encoder(Image((4, 6, 3), num_bands=2, projection_dim=5))
    encoder.modality.projection.trainable = False
    encoder.iterative_attention.cross_attends[1].trainable = False
    encoder.quantize("int8", filters="^mlp_.*")
    expected = encoder.predict(_images(), verbose=0)
    encoder.save(tmp_path / "encoder.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras")
    np.testing.assert_array_equal(loaded.predict(_images(), verbose=0), expected)
    assert not loaded.modality.projection.trainable
    assert not loaded.iterative_attention.cross_attends[1].trainable_weights
    configs = loaded.get_config(), encoder.get_config()
    assert json.dumps(configs[0]) == json.dumps(configs[1])  # tuples are lists there


def _numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x))


def test_dtype_policy_reaches_everything_but_the_modality():
    encoder = _encoder(dtype="mixed_bfloat16")
    assert encoder.get_config()["dtype"]["config"]["name"] == "mixed_bfloat16"
    outputs = encoder(_images())
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    again = Perceiver.from_config(encoder.get_config())
    assert again.iterative_attention.dtype_policy.name == "mixed_bfloat16"
    assert again.dtype_policy.name == encoder.dtype_policy.name == "mixed_bfloat16"


@pytest.mark.fast_on("tensorflow", "torch")
def test_defaults_are_the_papers_imagenet_setting():
    config = Perceiver(Image((2, 2, 3), num_bands=1)).get_config()
    assert (config["num_latents"], config["latent_dim"]) == (512, 1024)
    assert (config["num_blocks"], config["num_self_attends_per_block"]) == (8, 6)
    heads = [
        config[f"{kind}_attend"]["config"]["num_heads"] for kind in ("cross", "self")
    ]
    assert heads == [1, 8]
    assert config["num_cross_attends"] is None
    assert config["share_weights"] is True
    assert config["self_attend"]["config"]["dropout"] == 0


def test_mask_is_an_input_and_masked_pixels_have_no_influence():
    image = Image((4, 6, 3), num_bands=2, use_mask=True)
    encoder = Perceiver(image, num_latents=5, latent_dim=16, num_blocks=2)
    images, mask = _images(), np.random.default_rng(1).random((2, 4, 6)) > 0.5
    expected = encoder.predict({"image": images, "image_mask": mask}, verbose=0)
    for padding in (7.0, np.nan):
        padded = np.where(mask[..., None], images, padding).astype("float32")
        outputs = encoder.predict({"image": padded, "image_mask": mask}, verbose=0)
        np.testing.assert_array_equal(outputs, expected)
    everything = encoder.predict(
        {"image": images, "image_mask": np.ones_like(mask)}, verbose=0
    )
    assert np.abs(everything - expected).max() > 1e-3
    with pytest.raises(ValueError, match=r"Add \['image_mask'\]"):
        encoder.predict({"image": images}, verbose=0)


def test_learned_positions_train():
    image = Image((4, 6, 3), position_encoding=LearnedPositionEncoding(7))
    encoder = Perceiver(image, num_latents=5, latent_dim=16, num_blocks=1)
    before = image.position_encoding.positions.numpy().copy()
    encoder.compile("sgd", "mse")
    encoder.fit(_images(), np.ones((2, 5, 16)), verbose=0)
    assert (image.position_encoding.positions.numpy() != before).any()


def test_two_encoders_start_with_different_weights():
    first, second = (_encoder().predict(_images(), verbose=0) for _ in range(2))
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_latents": 0}, "`num_latents` must be a positive integer"),
        ({"latent_dim": -4}, "`latent_dim` must be a positive integer"),
        ({"num_blocks": 0}, "`num_blocks` must be a positive integer"),
        ({"num_cross_attends": 3}, "`num_cross_attends` must not exceed `num_blocks`"),
        ({"self_attend": SelfAttend(num_heads=3)}, "divisible by `num_heads`"),
        ({"cross_attend": CrossAttend(num_heads=2)}, "divisible by `num_heads`"),
    ],
)
def test_bad_arguments(settings, message):
    with pytest.raises(ValueError, match=message):
        _encoder(**settings)


def test_rejects_other_types_than_modalities():
    for bad in (keras.layers.Dense(3), {"dense": keras.layers.Dense(3)}):
        with pytest.raises(TypeError, match="must be a modality layer.*Dense.*Image"):
            Perceiver(bad)
    with pytest.raises(ValueError, match="`modality` must have names"):
        Perceiver({})


@pytest.mark.one_backend
def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match=r"num_latent=3. Did you mean 'num_latents'\?"):
        Perceiver(Image((4, 4, 1)), num_latent=3)
    with pytest.raises(TypeError, match=r"class_name=.*Did you mean 'class_names'\?"):
        PerceiverClassifier(_encoder(), 4, class_name=["a"])


def test_a_backend_that_is_chosen_too_late_is_a_warning(monkeypatch):
    used = keras.backend.backend()
    _encoder()
    chosen = "jax" if used == "torch" else "torch"
    monkeypatch.setenv("KERAS_BACKEND", chosen)
    with pytest.warns(UserWarning, match=f"'{chosen}', while Keras uses '{used}'"):
        _encoder()
