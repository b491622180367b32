"""Contracts of public layers and models. One call checks a class."""

import json

import keras
import numpy as np

_HALF_POLICIES = ("mixed_bfloat16", "mixed_float16")
# Otherwise JAX runs operations one by one, which takes minutes.
_USUAL_JIT = keras.backend.backend() == "jax"


def check_layer(cls, config, *inputs, unknown_length=()):
    """Checks a layer class.

    Args:
        cls: Layer class.
        config: Dict of constructor arguments, if possible different from their
            defaults, or a function that returns the dict, if an argument is a layer.
        *inputs: Arrays, or dicts of arrays, the arguments of the call.
        unknown_length: Indices of the inputs whose second dimension may be unknown.
    """
    make = config if callable(config) else lambda: config
    _check_config(cls, make)
    layer = _check_build(cls, make, inputs)
    _check_symbolic(cls, make, inputs, unknown_length)
    for policy in _HALF_POLICIES:
        _check_policy(cls, make, inputs, policy)
    _check_gradients(layer, inputs)


def check_model(make, x, y, tmp_path, half_policies=("mixed_bfloat16",)):
    """Checks a model that ends in logits.

    Args:
        make: Callable without arguments that returns a new, uncompiled model.
        x: Input array or dict of arrays.
        y: Class indices.
        tmp_path: Folder for the files of the test.
        half_policies: Dtype policies to train under besides float32.
    """
    model = make()
    expected = model.predict(x, verbose=0)
    assert expected.dtype == "float32"

    config = json.loads(json.dumps(model.get_config()))
    again = type(model).from_config(config)
    assert json.loads(json.dumps(again.get_config())) == config
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]

    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.saving.load_model(path, safe_mode=True)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), expected)

    # One model, batches of any size.
    first = keras.tree.map_structure(lambda a: a[:1], x)
    np.testing.assert_allclose(
        model.predict(first, verbose=0), expected[:1], rtol=1e-5, atol=1e-5
    )
    _check_fit(model, x, y, jit_compile=_USUAL_JIT)
    for policy in half_policies:
        keras.config.set_dtype_policy(policy)
        model = make()
        assert keras.backend.standardize_dtype(model(x).dtype) == "float32"
        _check_fit(model, x, y, jit_compile=_USUAL_JIT)
        keras.config.set_dtype_policy("float32")


def check_compiled(make, x, y):
    """Checks that a model trains under `jit_compile=True`. Arguments are as above."""
    _check_fit(make(), x, y, jit_compile=True)


def _check_config(cls, make):
    config = make()
    layer = cls(**config)
    stored = layer.get_config()
    for name, value in config.items():
        kept = stored[name]
        if isinstance(value, (keras.layers.Layer, dict)):
            value = keras.saving.serialize_keras_object(value)
        elif name.endswith("_initializer"):
            value = keras.initializers.serialize(keras.initializers.get(value))
        assert kept == value or kept == tuple(value), (name, kept, value)
    again = cls.from_config(json.loads(json.dumps(stored)))
    assert again.get_config() == stored
    # And as part of a saved model, by its registered name.
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    assert serialized["registered_name"] == f"keras_perceiver>{cls.__name__}"
    restored = keras.saving.deserialize_keras_object(serialized)
    assert type(restored) is cls


def _check_build(cls, make, inputs):
    layer = cls(**make())
    before = _without_shapes(layer.get_config())
    layer.build(*keras.tree.map_structure(lambda x: x.shape, inputs))
    assert layer.built
    assert _without_shapes(layer.get_config()) == before
    paths = [weight.path for weight in layer.weights]
    assert len(set(paths)) == len(paths)
    layer(*inputs)
    assert [weight.path for weight in layer.weights] == paths
    # Inner layers restored from a config have the same number of weights.
    again = cls.from_config(layer.get_config())
    again(*inputs)
    assert [w.shape for w in again.weights] == [w.shape for w in layer.weights]
    return layer


def _without_shapes(config):
    """Removes the build config that Keras adds for built inner layers."""
    if not isinstance(config, dict):
        return config
    return {k: _without_shapes(v) for k, v in config.items() if k != "build_config"}


def _check_symbolic(cls, make, inputs, unknown_length):
    def symbolic(i, x):
        shape = [None, *x.shape[1:]]
        if i in unknown_length:
            shape[1] = None
        return keras.KerasTensor(shape, dtype=str(x.dtype))

    layer = cls(**make())
    spec = layer(
        *(
            keras.tree.map_structure(lambda x, i=i: symbolic(i, x), structure)
            for i, structure in enumerate(inputs)
        )
    )
    specs, outputs = keras.tree.flatten(spec), keras.tree.flatten(layer(*inputs))
    for spec, output in zip(specs, outputs, strict=True):
        assert spec.shape[0] is None
        assert len(spec.shape) == len(output.shape)
        for expected, actual in zip(spec.shape, output.shape, strict=True):
            assert expected in (None, actual)
        assert spec.dtype == keras.backend.standardize_dtype(output.dtype)


def _check_policy(cls, make, inputs, policy):
    keras.config.set_dtype_policy(policy)  # for layers among the arguments
    config = make()
    keras.config.set_dtype_policy("float32")
    layer = cls(**config, dtype=policy)
    output = keras.tree.flatten(layer(*inputs))[0]
    compute_dtype = policy.removeprefix("mixed_")
    assert keras.backend.standardize_dtype(output.dtype) == compute_dtype
    values = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(output, "float32")))
    assert np.isfinite(values).all()
    for sublayer in layer._flatten_layers():
        assert sublayer.dtype_policy.name == policy, sublayer
    for weight in layer.weights:
        if "seed_generator" not in weight.path:
            assert weight.dtype == "float32"


class Wrapped(keras.Model):
    """A model of a layer with any number of inputs, to train it for one step."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, inputs):
        return keras.tree.flatten(self.layer(*inputs))[0]


def _check_gradients(layer, inputs):
    if not layer.trainable_weights:
        return
    model = Wrapped(layer)
    shape = model(list(inputs)).shape
    target = np.random.default_rng(0).normal(size=shape).astype("float32")
    _check_training_step(model, list(inputs), target, "mse", _USUAL_JIT)


def _check_fit(model, x, y, jit_compile):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    _check_training_step(model, x, y, loss, jit_compile)


def _check_training_step(model, x, y, loss, jit_compile):
    """Checks that a step changes every weight by a finite amount."""
    model(keras.tree.map_structure(lambda a: a[:1], x))
    before = [weight.numpy().copy() for weight in model.trainable_weights]
    # RMSprop's step does not depend on the scale of a gradient.
    model.compile(
        keras.optimizers.RMSprop(1e-2, epsilon=1e-12),
        loss=loss,
        jit_compile=jit_compile,
    )
    # The loss scale of float16 starts so high that the first steps are skipped.
    num_steps = 12 if keras.config.dtype_policy().name == "mixed_float16" else 2
    history = model.fit(x, y, batch_size=len(y), epochs=num_steps, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    for weight, old in zip(model.trainable_weights, before, strict=True):
        new = weight.numpy()
        assert np.isfinite(new).all(), weight.path
        # A constant that is added to all keys cancels in the softmax, so this gradient
        # is 0.
        if not weight.path.endswith("key/bias"):
            assert (new != old).any(), weight.path
