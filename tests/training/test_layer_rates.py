"""Layers are updated by a part of what the optimizer alone would do."""

import keras
import numpy as np
import pytest

from keras_perceiver import (
    ConvImage,
    Image,
    LearnedPositionEncoding,
    LearnedQueries,
    Perceiver,
    PerceiverClassifier,
    PerceiverDecoder,
    SelfAttend,
)
from keras_perceiver.training import (
    LayerwiseOptimizer,
    TrackingOptimizer,
    layer_rates,
)


def _model():
    keras.utils.set_random_seed(0)
    encoder = Perceiver(
        Image((4, 4, 1), num_bands=2),
        num_latents=4,
        latent_dim=8,
        num_blocks=2,
        num_self_attends_per_block=2,
        num_cross_attends=1,
        self_attend=SelfAttend(num_heads=2),
    )
    queries = LearnedQueries(1, 8, name="queries")
    return PerceiverClassifier(encoder, 3, decoder=PerceiverDecoder(queries))


def _changes(make_optimizer, num_steps=1):
    """Returns how much each variable changes in some steps, by path."""
    model = _model()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 4, 4, 1)).astype("float32"), np.arange(6) % 3
    before = {v.path: keras.ops.convert_to_numpy(v) for v in model.trainable_weights}
    model.compile(make_optimizer(model))
    for _ in range(num_steps):
        model.train_on_batch(x, y)
    return {
        v.path: keras.ops.convert_to_numpy(v) - before[v.path]
        for v in model.trainable_weights
    }


def _adam():
    return keras.optimizers.AdamW(1e-2, weight_decay=0.1)


def test_rates_fall_to_the_first_layers():
    trunk = "iterative_attention"
    assert layer_rates(_model(), 0.5) == {
        f"{trunk}/latent_transformer_0/self_attend_1": 0.5,
        f"{trunk}/latent_transformer_0/self_attend_0": 0.25,
        f"{trunk}/cross_attend_0": 0.125,
        "latent_array": 0.0625,
    }
    model = _model()
    model.encoder.trainable = False
    assert layer_rates(model, 0.5) == {}
    with pytest.raises(ValueError, match=r"`decay` must be in \(0, 1\]"):
        layer_rates(_model(), 0.0)


@pytest.mark.parametrize("is_tracked", [False, True])
@pytest.mark.fast_on("torch")
def test_updates_are_those_of_the_optimizer_times_the_rates(is_tracked):
    rates = {"latent_array": 0.0, "decoder": 0.5, "decoder/head": 0.25}

    def layerwise(model):
        optimizer = LayerwiseOptimizer(_adam(), rates)
        return TrackingOptimizer(optimizer, 0.9) if is_tracked else optimizer

    whole = _changes(lambda model: _adam())
    found = _changes(layerwise)
    for path, change in whole.items():
        rate = 1.0
        for beginning in rates:  # the longest comes last
            rate = rates[beginning] if path.startswith(f"{beginning}/") else rate
        np.testing.assert_allclose(found[path], rate * change, rtol=1e-3, atol=1e-6)
    assert np.abs(whole["latent_array/latents"]).max() > 1e-3
    assert not found["latent_array/latents"].any()


@pytest.mark.fast_on("torch")
def test_optimizer_is_saved_with_the_model(tmp_path):
    model = _model()
    model.compile(LayerwiseOptimizer(_adam(), layer_rates(model, 0.5)))
    x, y = np.ones((6, 4, 4, 1), "float32"), np.arange(6) % 3
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.optimizer.rates == model.optimizer.rates
    losses = [m.fit(x, y, verbose=0).history["loss"] for m in (model, again, model)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[2] != losses[0]
    assert int(model.optimizer.iterations) == 3


@pytest.mark.fast_on("torch")
@pytest.mark.parametrize(
    "modality",
    [
        Image((4, 4, 1), position_encoding=LearnedPositionEncoding(3, projected_dim=2)),
        ConvImage((16, 16, 1), filters=4, num_bands=2),
        {"image": Image((4, 4, 1), num_bands=2, projection_dim=3)},
    ],
    ids=["learned", "conv", "dict"],
)
def test_weights_of_modalities_have_the_same_paths_in_a_loaded_model(
    modality, tmp_path
):
    encoder = Perceiver(
        modality,
        num_latents=4,
        latent_dim=8,
        num_blocks=1,
        num_self_attends_per_block=1,
        self_attend=SelfAttend(num_heads=2),
    )
    model = PerceiverClassifier(encoder, 3)
    rates = layer_rates(model, 0.5)
    assert "byte_array" in rates
    model.compile(LayerwiseOptimizer(_adam(), rates))
    x = np.ones((3, *model.inputs[0].shape[1:]), "float32")
    x = {"image": x} if isinstance(modality, dict) else x
    y = np.arange(3)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    paths = [weight.path for weight in model.weights]
    assert [weight.path for weight in again.weights] == paths
    again.fit(x, y, verbose=0)


def test_bad_rates_are_refused():
    with pytest.raises(ValueError, match="factors from 0 to 1. Received: .'a': 2"):
        LayerwiseOptimizer(_adam(), {"a": 2})
    model = _model()
    model.compile(LayerwiseOptimizer(_adam(), {"decoder": 0.5, "encoder/latent": 0.5}))
    with pytest.raises(ValueError, match=r"`rates` must name.*'encoder/latent'"):
        model.train_on_batch(np.ones((2, 4, 4, 1)), np.zeros(2))
