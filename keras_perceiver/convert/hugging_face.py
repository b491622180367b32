"""Perceiver models in Hugging Face's layout: `config.json` and safetensors.

Reference:
    `transformers.models.perceiver`, whose names these are;
    [Jaegle et al., 2021](https://arxiv.org/abs/2107.14795).
"""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

import numpy as np

from keras_perceiver._files import replace_file
from keras_perceiver.convert.files import SAFETENSORS, safetensors_for, weights_in
from keras_perceiver.convert.hugging_face_settings import (
    CONV,
    PREPROCESSOR,
    architecture_of,
    check_fields,
    classes_of,
    config_of,
    decoder_template,
    encoder_config,
    preprocessor_config,
    preprocessor_of,
)
from keras_perceiver.convert.tensors import (
    Pair,
    load_tensors,
    permuted,
    reshaped,
    tensors_of,
    transposed,
)
from keras_perceiver.layers import CrossAttend
from keras_perceiver.layers.composite import inner_layers
from keras_perceiver.modalities import ConvImage, Image
from keras_perceiver.models import PerceiverClassifier, handles
from keras_perceiver.models.lora import has_adapters

# Of the batches that PyTorch has seen: it has no place in Keras.
_COUNTER = "perceiver.input_preprocessor.convnet.batchnorm.num_batches_tracked"


def loader(folder, config):
    """Returns a function that loads the model of a folder, see `models.handles`.

    Args:
        folder: Path.
        config: Dict, its `config.json`.
    """
    if config.get("model_type") != "perceiver":
        return None
    return functools.partial(load_classifier, folder, config)


def load_classifier(
    folder, config, num_classes=None, load_weights=True, overrides=None
):
    """Creates a classifier from a folder that `transformers` has written.

    Args:
        folder: Path of a folder with weights.
        config: Dict, its `config.json`.
        num_classes: Integer, number of classes. Another one than that of the folder gives
            a new head with random weights. Defaults to that of the folder.
        load_weights: Boolean. `False`: the settings only, with random weights.
        overrides: Mapping of arguments of `Perceiver` by dotted paths, or `None`. With
            `"modality.use_same_padding": True` a conv model is that of DeepMind, whose
            kernel `transformers` has transposed.

    Returns:
        `PerceiverClassifier`.

    Raises:
        ValueError: if the folder holds another model, or weights that do not fit it.
    """
    folder = Path(folder)
    architecture = architecture_of(config, folder)
    check_fields(config, folder)
    encoder = encoder_config(config, architecture).replace(overrides or {})()
    _check_is_colored(encoder.modality)
    own_num_classes, names = classes_of(config)
    model = PerceiverClassifier(
        encoder,
        own_num_classes,
        preprocessor=preprocessor_of(folder, encoder.modality.shape),
        class_names=names,
        decoder=decoder_template(config),
    )
    if load_weights:
        source = weights_in(folder)
        ignored = {_COUNTER} if architecture == CONV else ()
        load_tensors(model, pairs_of(model), source, ignored, overrides)
    if num_classes in (None, own_num_classes):
        return model
    return model.with_num_classes(num_classes)


def save_to_hugging_face(model: PerceiverClassifier, folder: str | Path) -> None:
    """Writes a classifier as `transformers` reads it: configuration, weights, images.

    Adapters of `enable_lora` are merged into the weights.

    Args:
        model: `PerceiverClassifier` of images with a decoder, as `load_classifier`
            returns.
        folder: Path of a folder, which is created.

    Raises:
        ValueError: if `transformers` has no such model.
        ImportError: if safetensors is not installed.
        FileExistsError: if the folder has a `config.json` of another kind.
    """
    safetensors = safetensors_for(SAFETENSORS)
    policies = (layer.dtype_policy for _, layer, _ in inner_layers(model))
    if modes := {p.quantization_mode for p in policies} - {None}:
        raise ValueError(
            "The weights must be floating-point numbers, as `transformers` has them. "
            f"Received: a model quantized to {' and '.join(sorted(modes))}. Save the "
            "model that was quantized."
        )
    if has_adapters(model):
        with tempfile.TemporaryDirectory() as merged:
            handles.save(model, merged)
            model = handles.load(merged)
    config, tensors = config_of(model), tensors_of(pairs_of(model))
    if isinstance(model.encoder.modality, ConvImage):
        tensors[_COUNTER] = np.zeros((), "int64")
    target = handles.new_folder(folder, lambda config: "model_type" in config)
    replace_file(
        target / SAFETENSORS,
        lambda path: safetensors.numpy.save_file(
            tensors, path, metadata={"format": "pt"}
        ),
    )
    files = {"config.json": config}
    if model.preprocessor is None:
        (target / PREPROCESSOR).unlink(missing_ok=True)  # of an earlier model
    else:
        files[PREPROCESSOR] = preprocessor_config(model.preprocessor)
    for name, content in files.items():
        text = json.dumps(content, indent=2, sort_keys=True)
        replace_file(target / name, lambda path, text=text: path.write_text(text))


def _check_is_colored(modality):
    if not isinstance(modality, (Image, ConvImage)) or modality.shape[-1] != 3:
        raise ValueError(
            "The modality of these weights must be images with 3 channels. Received: an "
            f"{type(modality).__name__} of shape {tuple(modality.input_shape)}. Repeat "
            "the channel of gray images: `np.repeat(inputs, 3, axis=-1)`."
        )


def pairs_of(model):
    """Returns the `Pair`s of a classifier of images with a decoder."""
    encoder, modality = model.encoder, model.encoder.modality
    trunk, decoder = encoder.iterative_attention, model.decoder
    pairs = [
        Pair("perceiver.embeddings.latents", encoder.latent_array.latents),
        *_block("perceiver.encoder.cross_attention", trunk.cross_attends[0]),
    ]
    for i, layer in enumerate(trunk.latent_transformers[0].self_attends):
        pairs += _block(f"perceiver.encoder.self_attends.{i}", layer)
    place = "perceiver.input_preprocessor"
    if isinstance(modality, ConvImage):
        pairs += _convolution(f"{place}.convnet", modality)
    elif modality.projection_dim is not None:
        pairs += _learned_positions(place, modality)
    place = "perceiver.decoder.decoder"
    return [
        *pairs,
        Pair(
            f"{place}.output_position_encodings.position_embeddings",
            decoder.queries.queries,
        ),
        *_block(f"{place}.decoding_cross_attention", decoder.cross_attend),
        *_linear(f"{place}.final_layer", decoder.head),
    ]


def _block(place, block):
    attention = f"{place}.attention.self"
    pairs = _norm(f"{attention}.layernorm1", block.query_norm)
    if isinstance(block, CrossAttend):
        pairs += _norm(f"{attention}.layernorm2", block.inputs_norm)
    for name in ("query", "key", "value"):
        pairs += _linear(f"{attention}.{name}", getattr(block, name))
    return [
        *pairs,
        *_linear(f"{place}.attention.output.dense", block.output_projection),
        *_norm(f"{place}.layernorm", block.mlp_norm),
        *_linear(f"{place}.mlp.dense1", block.mlp_hidden),
        *_linear(f"{place}.mlp.dense2", block.mlp_output),
    ]


def _norm(place, layer):
    return [Pair(f"{place}.weight", layer.gamma), Pair(f"{place}.bias", layer.beta)]


def _linear(place, layer):
    return [
        transposed(f"{place}.weight", layer.kernel),
        Pair(f"{place}.bias", layer.bias),
    ]


def _learned_positions(place, modality):
    encoding, kernel = modality.position_encoding, modality.projection.kernel
    table = encoding.positions
    return [
        Pair(
            f"{place}.convnet_1x1.weight",
            kernel,
            lambda array: array[:, :, 0, 0].T,
            lambda array: array.T[:, :, None, None],
        ),
        Pair(f"{place}.convnet_1x1.bias", modality.projection.bias),
        reshaped(
            f"{place}.position_embeddings.position_embeddings",
            table,
            (-1, table.shape[-1]),
        ),
        *_linear(f"{place}.positions_projection", encoding.projection),
    ]


def _convolution(place, modality):
    norm, kernel = modality.batch_norm, modality.convolution.kernel
    # DeepMind's own kernel is in the files with its rows and columns exchanged, as with
    # all axes of the array in the opposite order.
    axes = (3, 2, 1, 0) if modality.use_same_padding else (2, 3, 1, 0)
    return [
        permuted(f"{place}.conv.weight", kernel, axes),
        Pair(f"{place}.batchnorm.weight", norm.gamma),
        Pair(f"{place}.batchnorm.bias", norm.beta),
        Pair(f"{place}.batchnorm.running_mean", norm.moving_mean),
        Pair(f"{place}.batchnorm.running_var", norm.moving_variance),
    ]
