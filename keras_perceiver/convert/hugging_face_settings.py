"""Settings of Perceiver models of `transformers`: `config.json` and that of the images.

Reference:
    `transformers.models.perceiver`, version 5.24.
"""

import numbers
import warnings
from pathlib import Path

import keras

from keras_perceiver._files import read_json
from keras_perceiver.config import Config
from keras_perceiver.layers import (
    CrossAttend,
    LearnedPositionEncoding,
    SelfAttend,
    gelu_tanh,
)
from keras_perceiver.modalities import ConvImage, Image, ImagePreprocessor
from keras_perceiver.modalities.preprocessors.pixels import (
    IMAGENET_MEAN,
    IMAGENET_STANDARD_DEVIATION,
)
from keras_perceiver.models import LearnedQueries, Perceiver, PerceiverDecoder

LEARNED = "PerceiverForImageClassificationLearned"
_FOURIER = "PerceiverForImageClassificationFourier"
CONV = "PerceiverForImageClassificationConvProcessing"
ARCHITECTURES = (LEARNED, _FOURIER, CONV)
PREPROCESSOR = "preprocessor_config.json"

# What is written into the code of `transformers`, not into its configuration.
_IMAGE_SIZE, _NUM_BANDS = 224, 64
CONV_RESOLUTION, CONV_FILTERS = 56, 64
_POSITION_DIM = 256

_SIZES = (
    "num_latents",
    "d_latents",
    "num_blocks",
    "num_self_attends_per_block",
    "num_cross_attention_heads",
    "num_self_attention_heads",
)
# By the numbers of Pillow.
_RESAMPLING = {2: "bilinear", 3: "bicubic"}

_ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "silu": "silu", "swish": "silu"}
_ACTIVATIONS |= dict.fromkeys(("gelu_pytorch_tanh", "gelu_new", "gelu_fast"), gelu_tanh)


def architecture_of(config, place):
    architectures = config.get("architectures") or [None]
    if architectures[0] not in ARCHITECTURES:
        raise ValueError(
            f"{place}/config.json must be that of a Perceiver for images, one of "
            f"{', '.join(ARCHITECTURES)}. Received: model_type="
            f"{config.get('model_type')!r}, architectures={architectures}. Choose another "
            "model."
        )
    return architectures[0]


def check_fields(config, place):
    """Raises `ValueError` unless the sizes of a `config.json` are there and valid."""
    for name in _SIZES:
        value = config.get(name)
        if type(value) is not int or value < 1:
            received = repr(value) if name in config else "none"
            raise ValueError(
                f"{place}/config.json must have a positive integer `{name}`. Received: "
                f"{received}. Correct it, or get the file again."
            )
    names = config.get("id2label") or {}
    if not isinstance(names, dict) or not all(
        str(key).isdigit() and isinstance(name, str) for key, name in names.items()
    ):
        raise ValueError(
            f"{place}/config.json must have names by class index as `id2label`. Received: "
            f"{names!r}. Correct it, or get the file again."
        )


def encoder_config(config, architecture):
    """Returns the `Config` of the encoder."""
    size = config.get("image_size", _IMAGE_SIZE)
    height, width = (size, size) if isinstance(size, int) else size
    if architecture == LEARNED:
        modality = Config(
            Image,
            shape=(height, width, 3),
            projection_dim=_POSITION_DIM,
            position_encoding=Config(
                LearnedPositionEncoding,
                dim=_POSITION_DIM,
                grid=(height, width),
                projected_dim=_POSITION_DIM,
            ),
        )
    elif architecture == _FOURIER:
        modality = Config(
            Image,
            shape=(_IMAGE_SIZE, _IMAGE_SIZE, 3),
            num_bands=_NUM_BANDS,
            max_resolution=_IMAGE_SIZE,
        )
    else:
        modality = Config(
            ConvImage,
            shape=(_IMAGE_SIZE, _IMAGE_SIZE, 3),
            filters=CONV_FILTERS,
            use_same_padding=False,
            num_bands=_NUM_BANDS,
            max_resolution=CONV_RESOLUTION,
        )
    activation = _activation(config)
    widths = {"qk_dim": config.get("qk_channels"), "v_dim": config.get("v_channels")}
    of_cross = dict(widths)
    if (
        of_cross["qk_dim"] is None
        and config.get("cross_attention_shape_for_attention", "kv") == "q"
    ):
        of_cross["qk_dim"] = config["d_latents"]
    return Config(
        Perceiver,
        modality=modality,
        num_latents=config["num_latents"],
        latent_dim=config["d_latents"],
        num_blocks=config["num_blocks"],
        num_self_attends_per_block=config["num_self_attends_per_block"],
        num_cross_attends=1,
        cross_attend=Config(
            CrossAttend,
            num_heads=config["num_cross_attention_heads"],
            widening_factor=config.get("cross_attention_widening_factor", 1),
            use_query_residual=bool(config.get("use_query_residual", True)),
            activation=activation,
            **of_cross,
        ),
        self_attend=Config(
            SelfAttend,
            num_heads=config["num_self_attention_heads"],
            widening_factor=config.get("self_attention_widening_factor", 1),
            activation=activation,
            **widths,
        ),
        share_weights=True,
    )


def decoder_template(config):
    """Returns the decoder, as a template."""
    return PerceiverDecoder(
        LearnedQueries(1, config["d_latents"]),
        CrossAttend(num_heads=1, activation=_activation(config)),
    )


def _activation(config):
    name = config.get("hidden_act", "gelu")
    if name not in _ACTIVATIONS:
        raise ValueError(
            f"`hidden_act` must be one of {sorted(_ACTIVATIONS)}. Received: "
            f"hidden_act={name!r}. Choose another model."
        )
    return _ACTIVATIONS[name]


def classes_of(config):
    """Returns the number of classes and their names, `None` if they have none."""
    names = config.get("id2label")
    if not names:
        return config.get("num_labels", 2), None
    names = [names[key] for key in sorted(names, key=int)]
    if all(name == f"LABEL_{i}" for i, name in enumerate(names)):
        return len(names), None
    if len(names) == 1:  # one logit is between two classes
        warnings.warn(
            f"`id2label` must have two classes to have names. Received: {names}. The "
            "model has none; set `class_names` to those of logits below and above 0.",
            stacklevel=2,
        )
        return 1, None
    # ImageNet has two cranes and two maillots.
    return len(names), [
        name if names.count(name) == 1 else f"{name} ({i})"
        for i, name in enumerate(names)
    ]


def preprocessor_of(folder, shape):
    """Returns the preprocessor of images, with the settings of the folder if it has any."""
    path = Path(folder) / PREPROCESSOR
    settings = read_json(path) if path.is_file() else {}

    def field(name, default, rule, is_valid):
        value = settings.get(name)
        if value is None:
            return default
        if not is_valid(value):
            raise ValueError(
                f"`{name}` in {path} must be {rule}. Received: {name}={value!r}. Correct "
                "it, or remove the file and set `model.preprocessor`."
            )
        return value

    def flag(name):
        return field(name, True, "true or false", lambda x: isinstance(x, bool))

    def side(name, default):
        rule = "a positive integer, or an object with `height`"
        return _side(field(name, default, rule, lambda x: _is_positive(_side(x))))

    def per_channel(name, default, is_valid):
        return field(
            name,
            default,
            "three numbers, positive as standard deviations",
            lambda x: isinstance(x, list) and len(x) == 3 and all(map(is_valid, x)),
        )

    field("do_resize", True, "true, as images of other sizes are resized", bool)
    interpolation = _RESAMPLING[
        field(
            "resample",
            3,
            "2 (bilinear) or 3 (bicubic)",
            lambda x: type(x) is int and x in _RESAMPLING,
        )
    ]
    factor = field("rescale_factor", 1 / 255, "a positive number", _is_positive)
    is_cropped, crop_fraction = flag("do_center_crop"), 1.0
    if is_cropped:
        size = side("size", _IMAGE_SIZE)
        crop_fraction = size / side("crop_size", 256)
        field("crop_size", 256, f"at least `size={size}`", lambda x: _side(x) >= size)
    mean = per_channel("image_mean", IMAGENET_MEAN, _is_number)
    deviation = per_channel("image_std", IMAGENET_STANDARD_DEVIATION, _is_positive)
    is_normalized = flag("do_normalize")
    return ImagePreprocessor(
        shape,
        value_range=(0.0, 255 * factor if flag("do_rescale") else 255.0),
        crop_to_aspect_ratio=is_cropped,
        crop_fraction=crop_fraction,
        interpolation=interpolation,
        mean=mean if is_normalized else None,
        standard_deviation=deviation if is_normalized else None,
    )


def _side(size):
    if isinstance(size, dict):
        size = size.get("height", size.get("shortest_edge"))
    return size


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_positive(value):
    return _is_number(value) and value > 0


def preprocessor_config(preprocessor):
    height, width, _ = preprocessor.shape
    crop = preprocessor.crop_fraction
    low, high = preprocessor.value_range
    mean = [number - low for number in preprocessor.mean or (0.0,) * 3]
    deviation = list(preprocessor.standard_deviation or (1.0,) * 3)
    return {
        "image_processor_type": "PerceiverImageProcessor",
        "do_center_crop": preprocessor.crop_to_aspect_ratio,
        "do_resize": True,
        "do_rescale": True,
        "rescale_factor": (high - low) / 255,
        "do_normalize": any(mean) or deviation != [1.0] * 3,
        "size": {"height": height, "width": width},
        "crop_size": {"height": round(height / crop), "width": round(width / crop)},
        "resample": {name: i for i, name in _RESAMPLING.items()}[
            preprocessor.interpolation
        ],
        "image_mean": mean,
        "image_std": deviation,
    }


def config_of(model):
    """Returns the `config.json` of a model, the inverse of `_encoder`."""
    encoder, modality = model.encoder, model.encoder.modality
    trunk, decoder = encoder.iterative_attention, model.decoder
    cross_attend = trunk.cross_attends[0]
    self_attend = trunk.latent_transformers[0].self_attends[0]
    activations = {
        keras.activations.get(value): key
        for key, value in reversed(_ACTIVATIONS.items())
    }
    config = {
        "model_type": "perceiver",
        "architectures": [_class_of(modality)],
        "num_latents": encoder.latent_array.num_latents,
        "d_latents": encoder.latent_array.latent_dim,
        "d_model": encoder.input_dim,
        "num_blocks": trunk.num_blocks,
        "num_self_attends_per_block": trunk.num_self_attends_per_block,
        "num_self_attention_heads": self_attend.num_heads,
        "num_cross_attention_heads": cross_attend.num_heads,
        "qk_channels": self_attend.qk_dim,
        "v_channels": self_attend.v_dim,
        "cross_attention_shape_for_attention": "kv",
        "self_attention_widening_factor": self_attend.widening_factor,
        "cross_attention_widening_factor": cross_attend.widening_factor,
        "use_query_residual": cross_attend.use_query_residual,
        "hidden_act": activations.get(cross_attend.activation),
        "image_size": modality.shape[0],
    }
    is_q = self_attend.qk_dim is None and cross_attend.qk_dim == config["d_latents"]
    if is_q:
        config["cross_attention_shape_for_attention"] = "q"
    names = {str(i): name for i, name in enumerate(_labels(model))}
    config["id2label"] = names
    config["label2id"] = {name: int(i) for i, name in names.items()}
    # What this module would make of it must be the model.
    problems = []
    if trunk.num_cross_attends != 1:
        problems = [f"num_cross_attends={trunk.num_cross_attends}"]
    elif decoder is None:
        problems = ["no decoder"]
    elif config["hidden_act"] is None:
        problems = [f"the activation {cross_attend.activation}"]
    else:
        expected = encoder_config(config, config["architectures"][0])()
        problems = [
            *_unlike(expected.get_config(), encoder.get_config()),
            *_unlike(decoder_template(config).get_config(), decoder.get_config()),
        ]
    if problems:
        raise ValueError(
            "`transformers` must have such a model: one cross-attend, shared weights, a "
            "decoder with one learned query of the width of the latents, one head and the "
            "defaults otherwise, images of 224 x 224 but with learned positions. Received: "
            f"{', '.join(problems)}. Save it as a `.keras` file."
        )
    return config


# What differs between equal layers, or has no effect on the outputs of a trained model.
_NO_SETTINGS = (
    *("name", "dtype", "build_config", "module", "trainable", "inner_settings"),
    *("use_remat", "dropout", "output_dim"),
)


def _unlike(expected, own, path=""):
    """Yields the settings that differ from what is expected, by dotted paths."""
    if isinstance(expected, dict) and isinstance(own, dict):
        inner = "config" in expected  # a serialized layer
        for key in sorted({*expected, *own} - {*_NO_SETTINGS}):
            name = path if inner and key == "config" else f"{path}.{key}".lstrip(".")
            yield from _unlike(expected.get(key), own.get(key), name)
    elif _as_list(expected) != _as_list(own):
        yield f"{path}={own!r}, expected {expected!r}"


def _as_list(value):
    return list(value) if isinstance(value, tuple) else value


def _labels(model):
    if model.class_names is None:
        return [f"LABEL_{i}" for i in range(model.num_classes)]
    return model.class_names[-model.num_classes :]  # of one logit, the class above 0


def _class_of(modality):
    if isinstance(modality, ConvImage):
        return CONV
    return _FOURIER if modality.projection_dim is None else LEARNED
