import keras
import numpy as np
import pytest

from keras_perceiver import Image, LearnedPositionEncoding, Perceiver


def _encoder(**settings):
    settings = {
        "num_latents": 5,
        "latent_dim": 16,
        "num_blocks": 2,
        "num_self_attends_per_block": 1,
        **settings,
    }
    return Perceiver(Image((4, 6, 3), num_bands=2), **settings)


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
        "num_cross_attend_heads": 3,
        "num_self_attend_heads": 4,
        "share_weights": False,
        "use_cross_attends_at_start": True,
        "cross_attend_qk_dim": 9,
        "cross_attend_v_dim": 6,
        "cross_attend_widening_factor": 2,
        "self_attend_qk_dim": 12,
        "self_attend_v_dim": 8,
        "self_attend_widening_factor": 3,
        "activation": "relu",
        "dropout": 0.1,
        "use_remat": True,
        "modality_dim": 7,
        "element_dropout": 0.2,
        "name": "reader",
        "trainable": False,
    }
    encoder = _encoder(**settings)
    config = encoder.get_config()
    assert {key: config[key] for key in settings} == settings
    again = Perceiver.from_config(config)
    assert again.get_config() == config
    shapes = [weight.shape for weight in encoder.weights]
    assert [weight.shape for weight in again.weights] == shapes
    # Each of these widths stands where it belongs.
    cross = again.iterative_attention.cross_attends[0]
    own = again.iterative_attention.latent_transformers[2].self_attends[1]
    assert cross.query.kernel.shape == (24, 9)
    assert cross.value.kernel.shape == (3 + 10, 6)
    assert cross.mlp_hidden.kernel.shape == (24, 48)
    assert own.key.kernel.shape == (24, 12)
    assert own.output_projection.kernel.shape == (8, 24)
    assert own.mlp_hidden.kernel.shape == (24, 72)
    assert not again.trainable_weights


def test_dtype_policy_reaches_everything_but_the_modality():
    encoder = _encoder(dtype="mixed_bfloat16")
    assert encoder.get_config()["dtype"]["config"]["name"] == "mixed_bfloat16"
    outputs = encoder(_images())
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    again = Perceiver.from_config(encoder.get_config())
    assert again.iterative_attention.dtype_policy.name == "mixed_bfloat16"


def test_defaults_are_the_papers_imagenet_setting():
    config = Perceiver(Image((2, 2, 3), num_bands=1)).get_config()
    assert (config["num_latents"], config["latent_dim"]) == (512, 1024)
    assert (config["num_blocks"], config["num_self_attends_per_block"]) == (8, 6)
    assert (config["num_cross_attend_heads"], config["num_self_attend_heads"]) == (1, 8)
    assert config["num_cross_attends"] is None
    assert config["share_weights"] is True
    assert config["dropout"] == 0


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
        ({"num_self_attend_heads": 3}, "divisible by `num_heads`"),
        ({"num_cross_attend_heads": 2}, "divisible by `num_heads`"),
        ({"dropout": -0.1}, "`dropout` must be a number"),
    ],
)
def test_bad_arguments(settings, message):
    with pytest.raises(ValueError, match=message):
        _encoder(**settings)


def test_refuses_what_is_no_modality():
    for bad in (keras.layers.Dense(3), {"dense": keras.layers.Dense(3)}):
        with pytest.raises(TypeError, match="must be a modality layer.*Dense.*Image"):
            Perceiver(bad)
    with pytest.raises(ValueError, match="`modality` must have names"):
        Perceiver({})
