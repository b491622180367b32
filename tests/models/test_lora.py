import keras
import numpy as np
import pytest

from keras_perceiver import Image, Perceiver, PerceiverClassifier, SelfAttend


def _model():
    encoder = Perceiver(
        Image((4, 6, 3), num_bands=2),
        num_latents=5,
        latent_dim=16,
        num_blocks=2,
        num_self_attends_per_block=1,
        self_attend=SelfAttend(num_heads=2),
    )
    return PerceiverClassifier(encoder, num_classes=4)


def _data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(6, 4, 6, 3)).astype("float32"), np.arange(6) % 4


def _trained(model, **options):
    model.encoder.enable_lora(3, **options)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.05), loss)
    history = model.fit(*_data(), epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]
    return model


@pytest.mark.fast_on("torch")
@pytest.mark.parametrize("quantized", [False, True])
def test_only_adapters_are_trained(quantized):
    model = _model()
    if quantized:
        model.quantize("int8", filters="^(query|key|value)$")
    before = {w.path: w.numpy().copy() for w in model.weights}
    expected = model.predict(_data()[0], verbose=0)
    _trained(model)
    # Queries and values of two cross-attends and one self-attend.
    names = [w.path.split("/")[-1] for w in model.encoder.trainable_weights]
    assert sorted(set(names) - {"bias"}) == ["lora_kernel_a", "lora_kernel_b"]
    assert names.count("lora_kernel_a") == 2 * 3
    adapted = {w.path.rsplit("/", 1)[0] for w in model.encoder.trainable_weights}
    for weight in model.encoder.weights:
        path, name = weight.path.rsplit("/", 1)
        if path not in adapted or name == "kernel":
            np.testing.assert_array_equal(weight.numpy(), before[weight.path])
    assert np.abs(model.predict(_data()[0], verbose=0) - expected).max() > 1e-3


@pytest.mark.fast_on("torch")
def test_model_is_saved_merged(tmp_path):
    model = _trained(_model(), target_layer_names=("mlp_hidden", "key"))
    expected = model.predict(_data()[0], verbose=0)
    model.save(tmp_path / "model.keras")
    # Not compiled, since the state of the optimizer is that of the adapters.
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert not [w for w in loaded.weights if "lora" in w.path]
    outputs = loaded.predict(_data()[0], verbose=0)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("has_adapters", [False, True])
@pytest.mark.fast_on("torch")
def test_adapters_are_saved_separately(has_adapters, tmp_path):
    base = _model()
    base.save(tmp_path / "base.keras")
    model = _trained(base)
    model.head.kernel.assign(np.ones((16, 4)))
    model.encoder.save_lora_weights(tmp_path / "a.lora.h5")
    assert (tmp_path / "a.lora.h5").stat().st_size < 30_000
    other = keras.saving.load_model(tmp_path / "base.keras", compile=False)
    if has_adapters:
        other.encoder.enable_lora(3)
    other.encoder.load_lora_weights(tmp_path / "a.lora.h5")
    kernels = [
        encoder.iterative_attention.cross_attends[1].query.kernel
        for encoder in (other.encoder, model.encoder)
    ]
    np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, kernels))
    encoder = other.encoder.iterative_attention
    assert not encoder.cross_attends[0].mlp_hidden.trainable


def test_adapters_of_another_model_are_refused(tmp_path):
    model = _model()
    with pytest.raises(ValueError, match=r"must be names of.*\['head'\].*'mlp_output'"):
        model.encoder.enable_lora(2, ("head",))
    with pytest.raises(ValueError, match="must have adapters to save.*enable_lora"):
        model.encoder.save_lora_weights(tmp_path / "a.lora.h5")
    model.encoder.enable_lora(2)
    with pytest.raises(ValueError, match="only once.*cross_attend_0/query"):
        model.encoder.enable_lora(2)
    with pytest.raises(ValueError, match="must end with '.lora.h5'"):
        model.encoder.save_lora_weights(tmp_path / "a.h5")
    model.encoder.save_lora_weights(tmp_path / "a.lora.h5")
    for rank, names in ((3, ("query", "value")), (2, ("key",))):
        other = _model()
        other.encoder.enable_lora(rank, names)
        with pytest.raises(ValueError, match="must match the model.*differs"):
            other.encoder.load_lora_weights(tmp_path / "a.lora.h5")


@pytest.mark.one_backend
@pytest.mark.parametrize("rank", [0, -1, 2.0])
def test_rank_must_be_positive(rank):
    with pytest.raises(ValueError, match="`rank` must be a positive integer"):
        _model().encoder.enable_lora(rank)
