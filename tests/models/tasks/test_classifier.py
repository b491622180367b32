import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_perceiver import (
    CrossAttend,
    Image,
    LearnedQueries,
    Perceiver,
    PerceiverClassifier,
    PerceiverDecoder,
    SelfAttend,
    export_for_serving,
)
from keras_perceiver.layers.attention import Chunked, use_kernel
from tests import contracts, reference

BACKENDS = ("tensorflow", "jax", "torch")


def _model(use_mask=False, decoder=None, **settings):
    # All widths differ: 3 + 10 = 13 channels, latents of width 16, 4 classes.
    settings = {
        "num_latents": 5,
        "latent_dim": 16,
        "num_blocks": 2,
        "num_self_attends_per_block": 2,
        "self_attend": SelfAttend(num_heads=4),
        **settings,
    }
    image = Image((4, 6, 3), num_bands=2, use_mask=use_mask)
    encoder = Perceiver(image, **settings)
    return PerceiverClassifier(encoder, num_classes=4, decoder=decoder)


def _data(batch=6):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, 4, 6, 3)).astype("float32")
    return images, np.arange(batch) % 4


def _randomize(model):
    rng = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0.1, 0.4, weight.shape))
    return model


def _model_with_dropout():
    return _model(
        num_blocks=1,
        num_self_attends_per_block=1,
        cross_attend=CrossAttend(dropout=0.1),
        self_attend=SelfAttend(num_heads=4, dropout=0.1),
    )


def test_contract(tmp_path):
    half_policies = ["mixed_bfloat16"]
    if keras.backend.backend() == "tensorflow":  # the only one that scales losses
        half_policies.append("mixed_float16")
    contracts.check_model(
        _model_with_dropout, *_data(), tmp_path, half_policies=half_policies
    )


@pytest.mark.fast_on("tensorflow")
def test_trains_compiled():
    contracts.check_compiled(_model_with_dropout, *_data())


@pytest.mark.fast_on("torch", "jax")
def test_contract_with_mask(tmp_path):
    images, labels = _data()
    mask = np.random.default_rng(2).random((6, 4, 6)) > 0.4
    x = {"image": images, "image_mask": mask}

    def make():
        return _model(use_mask=True, num_self_attends_per_block=1)

    contracts.check_model(make, x, labels, tmp_path, half_policies=())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("share_weights", [True, False])
def test_equals_float64_reference(masked, share_weights):
    model = _randomize(
        _model(
            use_mask=masked,
            share_weights=share_weights,
            cross_attend=CrossAttend(num_heads=3, qk_dim=9, v_dim=6, widening_factor=2),
            self_attend=SelfAttend(num_heads=4, qk_dim=8, v_dim=12, widening_factor=3),
        )
    )
    images, _ = _data()
    mask = np.random.default_rng(2).random((6, 4, 6)) > 0.4 if masked else None
    x = {"image": images, "image_mask": mask} if masked else images
    flat_mask = None if mask is None else mask.reshape(6, -1)
    expected = reference.classifier(images, model, (3, 4), share_weights, flat_mask)
    logits = model.predict(x, verbose=0)
    scale = max(np.abs(expected).max(), 1)
    np.testing.assert_allclose(logits / scale, expected / scale, atol=1e-5)


@pytest.mark.fast_on("torch")
def test_pixels_permuted_with_their_positions_change_no_logit():
    model = _randomize(_model(use_mask=False))
    images, _ = _data()
    encoder = model.encoder
    elements = keras.ops.convert_to_numpy(encoder.modality(images))
    order = np.random.default_rng(3).permutation(elements.shape[1])

    def logits(elements):
        latents = encoder.latent_array(elements)
        latents = encoder.iterative_attention(latents, elements)
        pooled = keras.ops.mean(latents, axis=1)
        return keras.ops.convert_to_numpy(model.head(pooled))

    expected = logits(elements)
    np.testing.assert_allclose(
        expected, model.predict(images, verbose=0), rtol=1e-5, atol=1e-5
    )
    permuted = logits(elements[:, order])
    scale = max(np.abs(expected).max(), 1)
    assert np.abs(permuted - expected).max() / scale <= 1e-5
    # Without their positions, it is another image.
    moved = elements.copy()
    moved[..., :3] = elements[:, order, :3]
    assert np.abs(logits(moved) - expected).max() / scale > 1e-3


@pytest.mark.fast_on("jax")
def test_file_gives_the_same_logits_under_another_backend(tmp_path):
    model = _randomize(_model())
    images, _ = _data()
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=images, y=model.predict(images, verbose=0))
    program = (
        "import sys, keras, numpy as np, keras_perceiver\n"
        "model = keras.saving.load_model(sys.argv[1], safe_mode=True)\n"
        "data = np.load(sys.argv[2])\n"
        "y = model.predict(data['x'], verbose=0)\n"
        "scale = max(np.abs(data['y']).max(), 1)\n"
        "np.testing.assert_allclose(y / scale, data['y'] / scale, atol=1e-5)\n"
        "print(keras.backend.backend())\n"
    )
    # The tests on all backends together cover all pairs.
    backend = BACKENDS[BACKENDS.index(keras.backend.backend()) - 1]
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            program,
            tmp_path / "model.keras",
            tmp_path / "data.npz",
        ],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.strip().endswith(backend)


@pytest.mark.fast_on("torch")
def test_fit_on_a_tf_dataset_learns():
    import tensorflow as tf

    images, labels = _data(32)
    images[..., 0] += labels[:, None, None]
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(16)
    model = _model(num_self_attends_per_block=1)
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(dataset.repeat(15), epochs=2, verbose=0).history
    assert history["accuracy"][-1] > 0.9


def test_layers_frozen_after_compile_stay_frozen():
    images, labels = _data()
    model = _model()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    model.encoder.trainable = False
    before = model.get_weights()
    model.fit(images, labels, verbose=0)
    moved = [
        weight.path
        for weight, old in zip(model.weights, before, strict=True)
        if (weight.numpy() != old).any()
    ]
    assert moved == [weight.path for weight in model.head.weights]


@pytest.fixture
def chunks():
    """Context in which attention runs in chunks of four inputs."""
    with use_kernel(Chunked(4)):
        yield


def _weights_after_training(num_blocks=3, jit_compile="auto"):
    images, labels = _data()
    keras.utils.set_random_seed(0)
    model = _model(num_blocks=num_blocks, num_self_attends_per_block=1)
    model.compile(
        keras.optimizers.SGD(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit_compile,
    )
    model.fit(images, labels, batch_size=6, epochs=2, shuffle=False, verbose=0)
    return [weight.numpy() for weight in model.weights]


@pytest.mark.fast_on("torch")
def test_chunks_change_nothing(request):
    expected = _weights_after_training()
    request.getfixturevalue("chunks")
    for a, b in zip(_weights_after_training(), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


# JAX always compiles, and torch does not compile chunks.
if keras.backend.backend() == "tensorflow":

    @pytest.mark.slow
    def test_chunks_change_nothing_compiled(request):
        options = {"num_blocks": 1, "jit_compile": True}
        expected = _weights_after_training(num_blocks=1)
        request.getfixturevalue("chunks")
        for a, b in zip(_weights_after_training(**options), expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


# Other backends export in another process, where the fixture has no effect.
if keras.backend.backend() == "tensorflow":

    @pytest.mark.usefixtures("chunks")
    @pytest.mark.slow
    def test_chunks_are_exported(tmp_path):
        # The export compares the SavedModel with `predict`.
        export_for_serving(_model(num_self_attends_per_block=1), tmp_path)


def _two_devices():
    """Returns a context in which Keras trains on two devices."""
    if keras.backend.backend() == "jax":
        return keras.distribution.DataParallel(devices=["cpu:0", "cpu:1"]).scope()
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()


# Keras has no distribution on torch.
if keras.backend.backend() != "torch":

    @pytest.mark.slow
    @pytest.mark.usefixtures("chunks")
    def test_chunks_on_two_devices():
        expected = _weights_after_training()
        with _two_devices():
            found = _weights_after_training()
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_presets_are_open_to_everybody():
    assert set(PerceiverClassifier.presets) >= {
        "imagenet",
        "imagenet_learned",
        "digits",
    }
    model = PerceiverClassifier.from_preset("digits", num_classes=3, num_latents=7)
    assert model.num_classes == 3
    assert model.encoder.latent_array.num_latents == 7
    with pytest.raises(ValueError, match="`name` must be a preset.*'nothing'.*'tiny'"):
        PerceiverClassifier.from_preset("nothing")


def test_bad_arguments():
    encoder = _model().encoder
    with pytest.raises(ValueError, match="`num_classes` must be a positive integer"):
        PerceiverClassifier(encoder, num_classes=0)
    with pytest.raises(TypeError, match="`encoder` must be a `Perceiver`"):
        PerceiverClassifier(keras.layers.Dense(3), num_classes=2)


@pytest.mark.fast_on("torch")
def test_decoder_with_one_query(tmp_path):
    def make():
        decoder = PerceiverDecoder(LearnedQueries(1, 12), CrossAttend(dropout=0.1))
        return _model(num_blocks=1, num_self_attends_per_block=1, decoder=decoder)

    images, labels = _data()
    contracts.check_model(make, images, labels, tmp_path, half_policies=())
    assert [layer.name for layer in make().layers][-2:] == ["decoder", "logits"]
    with pytest.raises(ValueError, match="must have one query.*3 queries"):
        _model(decoder=PerceiverDecoder(LearnedQueries(3, 12)))
    with pytest.raises(TypeError, match="`decoder` must be a `PerceiverDecoder`"):
        _model(decoder=CrossAttend())
