"""Composite layers: templates, and saved settings of inner layers."""

import keras

from keras_perceiver.layers.arguments import ArgumentsConfig


def clone_layer(template, name, dtype):
    """Returns a new layer with the settings of a template.

    Args:
        template: Keras layer that is not built.
        name: String, the name of the new layer.
        dtype: Dtype policy of the new layer.
    """
    config = {**template.get_config(), "name": name, "dtype": dtype}
    # An initializer with a seed would give all clones the same weights.
    for key, value in config.items():
        if key.endswith("_initializer"):
            config[key] = without_seed(keras.initializers.get(value))
    return type(template).from_config(config)


def without_seed(initializer):
    """Returns a copy of an initializer with a new random seed.

    The same instance would give two weights equal values.

    Args:
        initializer: Keras initializer. A plain function is returned unchanged.
    """
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    config = initializer.get_config()
    if "seed" in config:
        config["seed"] = None
    return type(initializer).from_config(config)


def check_template(name, template, cls):
    """Raises an error unless an argument is an unbuilt layer of a class.

    Args:
        name: String, the name of the argument.
        template: The argument.
        cls: Layer class.

    Raises:
        TypeError: if it is of another class.
        ValueError: if it is built.
    """
    if not isinstance(template, cls):
        raise TypeError(
            f"`{name}` must be a `{cls.__name__}` layer. Received: {name}={template!r} "
            f"of type {type(template).__name__}. Pass `{cls.__name__}(...)` with the "
            "settings of all layers of this kind, or None for the defaults."
        )
    if template.built:
        raise ValueError(
            f"`{name}` must not be built: it is a template whose settings are copied, "
            f"without its weights. Received: {name}={template.name!r}, which is built. "
            f"Pass a new `{cls.__name__}(...)`."
        )


class CompositeLayer(ArgumentsConfig, keras.layers.Layer):
    """A layer whose config includes the settings that users change on its inner layers.

    `trainable`, dtype policy and quantization of inner layers are not arguments of the
    outer one. They are stored in its config as `inner_settings`. A subclass calls
    `restore_inner_settings` at the end of its `build`, before weights are loaded.

    Args:
        inner_settings: Result of `inner_settings`, or `None`.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, *, inner_settings=None, **kwargs):
        super().__init__(**kwargs)
        self._restored_settings = dict(inner_settings or {})

    @property
    def separately_stored(self):
        """The inner layers that are arguments and have their own config.

        Models have this property too. `inner_settings` skips these layers with all that
        is inside them.
        """
        return ()

    def restore_inner_settings(self):
        """Applies the settings from the config to the inner layers, which must be built."""
        restore_inner_settings(self, self._restored_settings)

    def get_config(self):
        settings = self._restored_settings
        if self.built:
            settings = inner_settings(self)
        stored = {"inner_settings": dict(settings)} if settings else {}
        return {**super().get_config(), **stored}


def inner_settings(layer):
    """Returns the settings of inner layers that differ from those of the outer layer.

    Args:
        layer: Keras layer or model.

    Returns:
        Dict from the names of inner layers, joined by `/`, to JSON-serializable dicts
        with `trainable`, `dtype` and `quantization_config`, if they differ from those
        of the enclosing layer. Inner layers without differences are omitted.
    """
    settings = {}
    for path, inner, outer in inner_layers(layer, skipped=()):
        found = {}
        if outer.trainable and not inner.trainable:
            found["trainable"] = False
        # A layer that has another precision by design differs as well, which is
        # harmless.
        dtype = keras.dtype_policies.serialize(inner.dtype_policy)
        if dtype != keras.dtype_policies.serialize(outer.dtype_policy):
            found["dtype"] = dtype
        quantization = getattr(inner, "quantization_config", None)
        if quantization is not None:
            found["quantization_config"] = keras.saving.serialize_keras_object(
                quantization
            )
        if found:
            settings[path] = found
    return settings


def restore_inner_settings(layer, settings):
    """Applies the result of `inner_settings` to the inner layers of a built layer.

    Args:
        layer: Keras layer or model, built.
        settings: Dict from `inner_settings`, or `None`.

    Raises:
        ValueError: if there is no inner layer with a stored name.
    """
    settings = settings or {}
    layers = {path: inner for path, inner, _ in inner_layers(layer, skipped=())}
    unknown = sorted(set(settings) - set(layers))
    if unknown:
        raise ValueError(
            f"`inner_settings` must name layers inside {layer.name!r}. Received: "
            f"{unknown}. The layers are {sorted(layers)}."
        )
    for path, found in settings.items():
        inner = layers[path]
        if "dtype" in found:
            _set_dtype(inner, found["dtype"], found.get("quantization_config"))
        if not found.get("trainable", True):
            inner.trainable = False
    # Layers that were frozen when they were created had no weights to freeze then.
    for frozen in (layer, *(inner for _, inner, _ in inner_layers(layer))):
        if not frozen.trainable:
            # TensorFlow ignores an assignment of the same value.
            frozen.trainable = True
            frozen.trainable = False


def _set_dtype(layer, dtype, quantization_config):
    policy = keras.dtype_policies.deserialize(dtype)
    if policy.quantization_mode is None:
        if layer.dtype_policy != policy:
            layer.dtype_policy = policy
        return
    # The name of a quantized policy ends with that of the original policy.
    source = policy.name.split("_from_")[-1]
    if layer.dtype_policy.name != source:
        layer.dtype_policy = source
    if quantization_config is None:
        layer.quantize(policy.quantization_mode)
    else:
        config = keras.saving.deserialize_keras_object(quantization_config)
        layer.quantize(config=config)


def inner_layers(layer, path="", skipped=None):
    """Yields `(path, inner layer, enclosing layer)`, outer layers first.

    Args:
        layer: Keras layer or model.
        path: String that paths begin with.
        skipped: Tuple of layers that are skipped with all that is inside them, as those
            that are stored separately are. `None` yields all layers.
    """
    if skipped is not None:
        skipped = (*skipped, *getattr(layer, "separately_stored", ()))
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        if any(inner is other for other in skipped or ()):
            continue
        inner_path = f"{path}{inner.name}"
        yield inner_path, inner, layer
        yield from inner_layers(inner, f"{inner_path}/", skipped)
