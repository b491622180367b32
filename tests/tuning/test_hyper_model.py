import json
import os
import subprocess
import sys

import keras
import keras_tuner as kt
import numpy as np
import pytest
from keras_tuner.errors import FailedTrialError

import keras_perceiver as kp
from keras_perceiver import PerceiverHyperModel
from keras_perceiver.data import digits

TASK = kp.Config(kp.PerceiverClassifier, num_classes=10)
SMALL = {
    "num_latents": 4,
    "latent_dim": 16,
    "num_blocks": 2,
    "num_self_attends_per_block": 1,
    "self_attend.num_heads": 2,
    "num_bands": 2,
    "batch_size": 32,
}


def _small(space=None, task=TASK, **options):
    return PerceiverHyperModel(
        kp.Image((8, 8, 1), num_bands=4), task, {**SMALL, **(space or {})}, **options
    )


def _flip(images, key):
    return images[:, ::-1]


# One value per name in the space, different from the default.
OVERRIDES = {
    "num_latents": 5,
    "latent_dim": 24,
    "num_blocks": 4,
    "num_self_attends_per_block": 3,
    "cross_attends_per_block": 0.75,
    "use_cross_attends_at_start": True,
    "share_weights": False,
    "cross_attend.num_heads": 9,
    "self_attend.num_heads": 3,
    "num_bands": 6,
    "max_resolution_scale": 2.0,
    "dropout": 0.3,
    "optimizer": "lamb",
    "learning_rate": 0.123,
    "weight_decay": 0.456,
    "label_smoothing": 0.2,
    "batch_size": 7,
    "augmentation": "flip",
}


def test_overrides_of_the_user_are_obeyed():
    """Each has an effect on the model, the optimizer, the loss or the data."""
    hyper_model = PerceiverHyperModel(
        kp.Image((8, 8, 1), num_bands=4), TASK, augmentations={"flip": _flip}
    )
    assert hyper_model.space.keys() == OVERRIDES.keys()
    assert not [n for n, v in OVERRIDES.items() if hyper_model.defaults[n] == v]
    hp = kt.HyperParameters()
    for name, value in OVERRIDES.items():
        hp.Fixed(name, value)
    model = hyper_model.build(hp)
    config = model.encoder.get_config()
    same = set(OVERRIDES) & set(config)
    assert {name: config[name] for name in same} == {n: OVERRIDES[n] for n in same}
    assert len(same) == 6
    trunk = model.encoder.iterative_attention
    cross_attend = trunk.cross_attends[0]
    self_attend = trunk.latent_transformers[0].self_attends[0]
    assert (cross_attend.num_heads, self_attend.num_heads) == (9, 3)
    assert (cross_attend.dropout, self_attend.dropout) == (0.3, 0.3)
    assert config["num_cross_attends"] == 3
    image = model.encoder.modality
    assert (image.num_bands, image.max_resolution) == (6, (16, 16))
    assert model.loss.label_smoothing == 0.2
    optimizer = model.optimizer.inner_optimizer
    assert isinstance(optimizer, kp.Lamb)
    assert optimizer.weight_decay == 0.456
    assert float(optimizer.learning_rate) == pytest.approx(0.123)
    # The others in `fit`.
    x = np.arange(14 * 64, dtype="float32").reshape(14, 8, 8, 1)
    seen = []
    model.fit = lambda dataset, **options: seen.append((dataset, options))
    hyper_model.fit(hp, model, x, np.arange(14) % 10, epochs=3)
    schedule = model.optimizer.inner_optimizer._learning_rate
    assert (schedule.warmup_target, schedule.decay_steps) == (0.123, 6 - 1)
    ((dataset, _),) = seen
    (images, labels), _ = dataset
    assert labels.shape == (7,)
    rows = images.numpy()[:, :, 0, 0]
    assert (np.diff(rows) < 0).all()


@pytest.mark.one_backend
def test_space_may_be_replaced_and_frozen():
    hyper_model = _small(
        {"dropout": [0.1, 0.4], "modality.element_dropout": (0.0, 0.5)}
    )
    hp = kt.HyperParameters()
    hyper_model.values(hp)
    free = {p.name: p for p in hp.space if type(p).__name__ != "Fixed"}
    assert not free.keys() & SMALL.keys()
    assert free["dropout"].values == [0.1, 0.4]
    assert free["modality.element_dropout"].max_value == 0.5
    model = hyper_model.build(hp)
    assert model.encoder.byte_array.element_dropout == 0.25
    with pytest.raises(ValueError, match="must have names of settings"):
        _small({"depth": 3})
    with pytest.raises(ValueError, match="`optimizer` must be one of"):
        _small({"optimizer": "sgd"})
    with pytest.raises(ValueError, match="`defaults` must have names of the space"):
        _small(defaults={"depth": 3})
    for name in ("depth", "num_cross_attends"):  # the space has cross-attends per block
        with pytest.raises(ValueError, match="`settings` must have names of settings"):
            _small(settings={name: 3})
    with pytest.raises(TypeError, match="must be a modality layer"):
        PerceiverHyperModel(keras.layers.Dense(3), TASK)
    with pytest.raises(TypeError, match="`task` must be a `Config` of a task"):
        PerceiverHyperModel(kp.Image((8, 8, 1)), 10)
    with pytest.raises(ValueError, match="`precision` must be one of"):
        _small(precision="float8")
    learned = kp.Image((8, 8, 1), position_encoding=kp.LearnedPositionEncoding(6))
    assert "num_bands" not in PerceiverHyperModel(learned, TASK).space
    with pytest.raises(ValueError, match="`num_bands` is for modalities with Fourier"):
        PerceiverHyperModel(learned, TASK, {"num_bands": 3})


@pytest.mark.one_backend
def test_invalid_settings_are_rejected_before_the_first_trial():
    with pytest.raises(ValueError, match=r"qk_dim=10, num_heads=4"):
        _small({"latent_dim": 10, "self_attend.num_heads": [4, 8]})
    with pytest.raises(
        ValueError, match=r"parameters are more than max_parameters=100"
    ):
        _small({"latent_dim": [16, 32]}, max_parameters=100)
    with pytest.raises(ValueError, match=r"flops are more than max_flops=1,000"):
        _small(max_flops=1000)
    with pytest.raises(ValueError, match=r"are more than max_activation_bytes=10"):
        _small(max_activation_bytes=10)
    with pytest.raises(ValueError, match="`num_inputs` is required"):
        PerceiverHyperModel(kp.PointCloud(), TASK, max_flops=1e9)
    # The default of a space with infeasible models is feasible.
    some = _small({"latent_dim": [15, 16]}, defaults={"latent_dim": 15})
    assert some.defaults["latent_dim"] == 16
    hp = kt.HyperParameters()
    hp.Fixed("latent_dim", 15)
    with pytest.raises(FailedTrialError, match="must be divisible by `num_heads`"):
        some.build(hp)


def _both():
    image = kp.Image((8, 8, 1), num_bands=4)
    audio = kp.Audio(40, 8000, patch_size=5, num_bands=4)
    return {"image": image, "audio": audio}


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("modality", "space", "settings"),
    [
        (kp.Image((8, 8, 1)), {}, {}),
        (
            kp.Image((8, 8, 3), position_encoding=kp.LearnedPositionEncoding(6)),
            {"share_weights": False, "cross_attends_per_block": 0.4},
            {"cross_attend.qk_dim": 8, "self_attend.widening_factor": 2},
        ),
        (
            _both(),
            {"num_self_attends_per_block": 2, "num_bands": 5},
            {
                "self_attend.qk_dim": 6,
                "self_attend.v_dim": 4,
                "modality.modality_dim": 3,
            },
        ),
    ],
)
def test_sizes_are_those_of_the_model(modality, space, settings):
    space = {k: v for k, v in {**SMALL, "num_blocks": 5}.items() if k != "num_bands"}
    hyper_model = PerceiverHyperModel(modality, TASK, space, settings=settings)
    hp = kt.HyperParameters()
    sizes = hyper_model.sizes(hyper_model.values(hp))
    model = hyper_model.build(hp)
    assert sizes.parameters == model.count_params()
    assert sizes.flops == kp.flops(model)


@pytest.mark.slow
@pytest.mark.one_backend
def test_activation_bytes_estimate_training_memory():
    program = """
import jax, json, keras, numpy as np
import keras_perceiver as kp, keras_tuner as kt
found = []
for space in ({"num_latents": 128, "num_blocks": 2}, {"num_latents": 16, "num_blocks": 1}):
    task = kp.Config(kp.PerceiverClassifier, num_classes=10)
    hyper_model = kp.PerceiverHyperModel(kp.Image((64, 64, 3), num_bands=32), task, {
        "latent_dim": 256, "num_self_attends_per_block": 1, "batch_size": 16,
        "self_attend.num_heads": 4, "num_bands": 32, **space})
    hp = kt.HyperParameters()
    model = hyper_model.build(hp)
    x, y = np.zeros((16, 64, 64, 3), "float32"), np.zeros(16, int)
    def loss(weights):
        logits, _ = model.stateless_call(weights, others, x, training=True)
        return model.loss(y, logits)
    weights = [v.value for v in model.trainable_variables]
    others = [v.value for v in model.non_trainable_variables]
    compiled = jax.jit(jax.grad(loss)).lower(weights).compile()
    needed = compiled.memory_analysis().temp_size_in_bytes
    found.append(hyper_model.sizes(hyper_model.values(hp)).activation_bytes / needed)
print(json.dumps(found))
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    for ratio in json.loads(result.stdout):
        assert 0.5 < ratio < 2


@pytest.mark.slow
def test_trains_in_the_precision_after_a_cleared_session():
    """As KerasTuner does it; on splits, arrays and a dataset."""
    hyper_model = _small(precision="mixed_bfloat16", seed=3)
    hp = kt.HyperParameters()
    keras.backend.clear_session()
    model = hyper_model.build(hp)
    assert keras.config.dtype_policy().name == "float32"
    trunk = model.encoder.iterative_attention
    for layer in trunk._flatten_layers():
        assert layer.dtype_policy.name == "mixed_bfloat16", layer.path
    history = hyper_model.fit(
        hp,
        model,
        lambda batch_size, seed: _few(digits(batch_size, seed)),
        verbose=0,
    )
    assert np.isfinite(history.history["val_accuracy"]).all()
    # The same seed, the same weights.
    first = hyper_model.build(hp).get_weights()
    for x, y in zip(first, hyper_model.build(hp).get_weights(), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.slow
def test_models_are_spread_over_the_devices_after_a_cleared_session():
    engine = {"tensorflow": "mirrored", "jax": "data_parallel", "torch": "none"}
    backend = keras.backend.backend()
    distribution = kp.Distribution(engine[backend])
    assert distribution.num_replicas == (1 if backend == "torch" else 2)
    hyper_model = _small({"batch_size": [32, 33]}, distribution=distribution)
    hp = kt.HyperParameters()
    hyper_model.values(hp)
    hp.values["batch_size"] = 33
    if backend != "torch":
        with pytest.raises(FailedTrialError, match="batch_size=33 is not divisible"):
            hyper_model.build(hp)
    keras.backend.clear_session()
    hp.values["batch_size"] = 32
    model = hyper_model.build(hp)
    images = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype("float32")
    labels = np.arange(64) % 10
    history = hyper_model.fit(
        hp, model, images, labels, (images[:45], labels[:45]), verbose=0
    )
    assert np.isfinite(history.history["val_accuracy"]).all()
    kernel = model.encoder.iterative_attention.cross_attends[0].key.kernel.value
    if backend == "jax":
        assert len(kernel.sharding.device_set) == 2
        assert kernel.sharding.is_fully_replicated
    if backend == "tensorflow":
        assert len(kernel.values) == 2


def _few(splits):
    return splits._replace(train=splits.train.take(1))


@pytest.mark.one_backend
def test_datasets_are_batched_anew():
    hyper_model = _small()
    hp = kt.HyperParameters()
    model = hyper_model.build(hp)
    seen = []
    model.fit = lambda dataset, validation_data, **_: seen.append(dataset)
    dataset = digits(50).validation  # 180 in one batch
    hyper_model.fit(hp, model, dataset)
    assert [len(labels) for _, labels in seen[0]] == [32] * 5
    with pytest.raises(ValueError, match="`y` must be None"):
        hyper_model.fit(hp, model, dataset, y=1)
    with pytest.raises(ValueError, match="number of training batches must be known"):
        hyper_model.fit(hp, model, dataset.filter(lambda *_: True))


def _fitted(**options):
    """Returns the arguments that Keras gets from `fit` for the examples 0 to 19."""
    hyper_model = _small(augmentations={"flip": _flip})
    hp = kt.HyperParameters()
    hp.Fixed("augmentation", options.pop("augmentation", "none"))
    model = hyper_model.build(hp)
    seen = []
    model.fit = lambda dataset, **more: seen.append((list(dataset), more))
    x = np.arange(20, dtype="float32").reshape(20, 1, 1, 1) * np.ones((1, 8, 8, 1))
    hyper_model.fit(hp, model, x.astype("float32"), np.arange(20) % 10, **options)
    ((train, more),) = seen
    return train, more


@pytest.mark.one_backend
def test_options_of_fit():
    train, more = _fitted(
        batch_size=5, validation_split=0.25, sample_weight=np.arange(20.0)
    )
    # Keras holds out the last examples, before it shuffles.
    assert [len(labels) for _, labels, _ in train] == [5, 5, 5]
    images, labels, weights = (
        np.concatenate(part) for part in zip(*train, strict=True)
    )
    assert sorted(images[:, 0, 0, 0]) == list(range(15))
    assert (labels == weights % 10).all()
    assert (images[:, 0, 0, 0] == weights).all()
    held_out, held_out_labels, held_out_weights = more["validation_data"]
    assert held_out[:, 0, 0, 0].tolist() == list(range(15, 20))
    assert held_out_labels.tolist() == [5, 6, 7, 8, 9]
    assert held_out_weights.tolist() == list(range(15, 20))
    # `validation_data` takes precedence, as in Keras. Augmentation keeps weights.
    train, more = _fitted(
        batch_size=20,
        validation_split=0.25,
        validation_data=(1, 2),
        sample_weight=np.arange(20.0),
        augmentation="flip",
    )
    assert more["validation_data"] == (1, 2)
    ((images, _, weights),) = train
    assert (images.numpy()[:, 0, 0, 0] == weights.numpy()).all()
    with pytest.raises(FailedTrialError, match="batch_size=32 exceeds the 20 train"):
        _fitted()
    with pytest.raises(ValueError, match="must leave examples for both parts"):
        _fitted(validation_split=1.0)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("name", "value"), [("sample_weight", [1.0]), ("validation_split", 0.5)]
)
def test_options_that_datasets_contain(name, value):
    hyper_model = _small()
    hp = kt.HyperParameters()
    model = hyper_model.build(hp)
    for x in (digits(50).validation, digits):
        with pytest.raises(ValueError, match=f"`{name}` must be None if `x` is a dat"):
            hyper_model.fit(hp, model, x, **{name: value})


@pytest.mark.slow
@pytest.mark.one_backend
def test_options_of_search_in_keras_tuner(tmp_path):
    hyper_model = _small()
    tuner = kt.RandomSearch(
        hyper_model,
        hyper_model.objective,
        max_trials=1,
        directory=str(tmp_path),
        project_name="a",
    )
    images = np.random.default_rng(0).normal(size=(40, 8, 8, 1)).astype("float32")
    tuner.search(
        images,
        np.arange(40) % 10,
        epochs=1,
        validation_split=0.25,
        sample_weight=np.ones(40),
        batch_size=8,
        verbose=0,
    )
    (trial,) = tuner.oracle.trials.values()
    assert trial.status == "COMPLETED"
    assert 0 <= trial.score <= 1


@pytest.mark.one_backend
@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no space"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 3 bytes"),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA"),
    ],
)
def test_out_of_memory_is_a_failed_trial(error):
    hyper_model = _small()
    hp = kt.HyperParameters()
    model = hyper_model.build(hp)

    def fit(*_, **__):
        raise error

    model.fit = fit
    with pytest.raises(FailedTrialError, match="ran out of memory"):
        hyper_model.fit(hp, model, digits)
    error = KeyError("another")
    with pytest.raises(KeyError):
        hyper_model.fit(hp, model, digits)


@pytest.mark.one_backend
def test_multi_label_examples():
    hyper_model = _small(
        task=kp.Config(kp.PerceiverMultiLabelClassifier, num_classes=10)
    )
    assert hyper_model.objective.name == "val_mean_average_precision"
    model = hyper_model.build(kt.HyperParameters())
    assert isinstance(model.loss, keras.losses.BinaryCrossentropy)


@pytest.mark.one_backend
def test_around_a_model():
    model = kp.PerceiverClassifier.from_preset("digits")
    hyper_model = PerceiverHyperModel.around(
        model, {"dropout": 0.1}, {"learning_rate": 4e-3}
    )
    assert hyper_model.space["num_latents"] == [4, 8, 16]
    assert hyper_model.space["num_bands"] == [2, 4, 8]
    assert hyper_model.defaults["learning_rate"] == 4e-3
    same = hyper_model.build(kt.HyperParameters())
    wanted, found = (m.encoder.get_config() for m in (model, same))
    wanted["num_cross_attends"] = 2  # which is the meaning of None
    for config in (wanted, found):
        for template in ("cross_attend", "self_attend"):
            config[template]["config"].pop("name")  # Keras numbers them
    names = wanted.keys() - {"name", "modality"}
    assert {n: found[n] for n in names} == {n: wanted[n] for n in names}
    assert same.count_params() == model.count_params()
