"""Encoders of trials: configs of a `Perceiver` from the values of a space."""

import keras

from keras_perceiver.config import Config
from keras_perceiver.layers import CrossAttend, IterativeAttention, SelfAttend
from keras_perceiver.modalities import ByteArray
from keras_perceiver.models import Perceiver
from keras_perceiver.tuning import space as spaces

# Arguments of `Perceiver` that are not arguments of `IterativeAttention`.
_NOT_OF_TRUNK = ("modality", "num_latents", "latent_dim", "name", "trainable")


def base_config(modality):
    """Returns the `Config` of a `Perceiver` with the paper's settings.

    Args:
        modality: Modality layer, dict of modality layers, or `ByteArray`. The config has a
            copy.

    Raises:
        TypeError: if it is none of these.
    """
    if not isinstance(modality, ByteArray):
        modality = ByteArray(modality, name="byte_array")
    return Config(
        Perceiver,
        modality=_copy(modality),
        cross_attend=CrossAttend(num_heads=1),
        self_attend=SelfAttend(num_heads=8),
    )


def encoder_config(base, settings, values, precision):
    """Returns the `Config` of the `Perceiver` of a trial.

    Args:
        base: `Config` of a `Perceiver`.
        settings: Dict from dotted paths to values that are the same in all trials.
        values: Dict from the names of the space to values.
        precision: String, dtype policy of the modalities.

    Raises:
        ValueError: if a layer rejects its values.
    """
    num_blocks = values["num_blocks"]
    num_cross_attends = round(values["cross_attends_per_block"] * num_blocks)
    others = {*spaces.COMBINED, *spaces.OF_TRAINING}
    overrides = {
        "num_cross_attends": min(max(num_cross_attends, 1), num_blocks),
        "cross_attend.dropout": values["dropout"],
        "self_attend.dropout": values["dropout"],
        **{name: v for name, v in settings.items() if name not in others},
        **{name: v for name, v in values.items() if name not in others},
    }
    encoder = base.replace(overrides)
    byte_array = _byte_array(encoder.kwargs["modality"], values, precision)
    return encoder.replace({"modality": byte_array})


def _byte_array(byte_array, values, precision):
    """Returns a copy of the modalities, with the values for Fourier features."""
    modalities = {
        name: _fourier_modality(layer, values, precision)
        if is_fourier(layer)
        else _copy(layer, dtype=precision)
        for name, layer in byte_array.modalities.items()
    }
    modality = modalities
    if byte_array.is_single:
        (modality,) = modalities.values()
    config = byte_array.get_config()
    return ByteArray(**{**config, "modality": modality, "dtype": precision})


def _fourier_modality(layer, values, precision):
    resolution, scale = layer.max_resolution, values["max_resolution_scale"]
    if scale != 1.0:
        resolution = layer.position_encoding.max_resolution or layer.grid
        if isinstance(resolution, int):
            resolution = max(round(resolution * scale), 1)
        else:
            resolution = tuple(max(round(n * scale), 1) for n in resolution)
    changes = {"num_bands": values["num_bands"], "max_resolution": resolution}
    return _copy(layer, dtype=precision, **changes)


def trunk_of(encoder):
    """Returns the unbuilt `IterativeAttention` for the `Config` of a `Perceiver`."""
    kwargs = {k: v for k, v in encoder.kwargs.items() if k not in _NOT_OF_TRUNK}
    return Config(IterativeAttention, **kwargs)()


def input_sizes(encoder):
    """Returns the width of an element, and the number of parameters of the modalities.

    Args:
        encoder: `Config` of a `Perceiver` whose `modality` is a `ByteArray`.
    """
    byte_array = encoder.kwargs["modality"]
    inputs = {
        name: keras.KerasTensor((None, *layer.input_shape))
        for name, layer in byte_array.modalities.items()
    }
    byte_array.build({name: x.shape for name, x in inputs.items()})
    outputs = byte_array.compute_output_spec(inputs)
    elements = outputs[0] if byte_array.has_mask else outputs
    return elements.shape[-1], byte_array.count_params()


def is_fourier(layer):
    """Returns whether a modality has Fourier features, so that `num_bands` applies."""
    return layer.get_config()["position_encoding"] is None


def _copy(layer, **changes):
    """Returns a new layer with the settings of a layer, which may be built."""
    return type(layer).from_config({**layer.get_config(), **changes})


def settings_around(model):
    """Returns the settings of a search around a model as three dicts.

    Args:
        model: Task.

    Returns:
        The space with half, once and twice the sizes of the model, the values that a
        search starts with, and the settings of the model that differ from the defaults,
        which are the same in all trials.
    """
    trunk = model.encoder.iterative_attention
    sizes = {
        "num_latents": model.encoder.latent_array.num_latents,
        "latent_dim": model.encoder.latent_array.latent_dim,
        "num_blocks": trunk.num_blocks,
        "num_self_attends_per_block": trunk.num_self_attends_per_block,
    }
    config = trunk.get_config()
    templates = {
        name: keras.saving.deserialize_keras_object(config[name])
        for name in ("cross_attend", "self_attend")
    }
    sizes["self_attend.num_heads"] = templates["self_attend"].num_heads
    around = {
        name: sorted({max(size // 2, 1), size, size * 2})
        for name, size in sizes.items()
    }
    around["cross_attend.num_heads"] = templates["cross_attend"].num_heads
    num_cross_attends = trunk.num_cross_attends or trunk.num_blocks
    begin = {
        **sizes,
        "cross_attends_per_block": num_cross_attends / trunk.num_blocks,
        "use_cross_attends_at_start": trunk.use_cross_attends_at_start,
        "share_weights": trunk.share_weights,
        "dropout": templates["self_attend"].dropout,
        "max_resolution_scale": 1.0,
    }
    byte_array = model.encoder.byte_array
    bands = {m.num_bands for m in byte_array.modalities.values() if is_fourier(m)}
    bands -= {None}
    if len(bands) == 1:
        (number,) = bands
        around["num_bands"] = [max(number // 2, 1), number, number * 2]
        begin["num_bands"] = number
    kept = {"use_remat": trunk.use_remat}
    for name, template in templates.items():
        usual = type(template)().get_config()
        kept |= {
            f"{name}.{key}": value
            for key, value in template.get_config().items()
            if value != usual[key]
            and key not in ("name", "dtype", "num_heads", "dropout")
        }
    return around, begin, kept
