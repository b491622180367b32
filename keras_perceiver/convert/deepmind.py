"""The image models of Perceiver IO as DeepMind has published them: pickles of Haiku.

A pickle is a program. These are read by an interpreter that knows NumPy's arrays and
Haiku's mappings, and refuses every other name.

Reference:
    deepmind-research, folder `perceiver`, whose names these are;
    [Jaegle et al., 2021](https://arxiv.org/abs/2107.14795).
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_perceiver.convert.tensors import Pair, load_tensors, reshaped
from keras_perceiver.layers import CrossAttend, gelu_tanh
from keras_perceiver.modalities import ConvImage, ImagePreprocessor
from keras_perceiver.modalities.preprocessors.pixels import (
    IMAGENET_MEAN,
    IMAGENET_STANDARD_DEVIATION,
)
from keras_perceiver.models import PerceiverClassifier, presets

_PRESETS = {
    "image_preprocessor/~/conv2_d_downsample/~/conv": "imagenet_io_conv",
    "image_preprocessor/~/conv2_d": "imagenet_io_learned",
    "perceiver_encoder/~/cross_attention/attention/linear": "imagenet_io",
}
_ENCODER, _STEM = "perceiver_encoder/~", "image_preprocessor/~"
_DECODER = "classification_decoder/~/basic_decoder"
_BATCH_NORM = f"{_STEM}/conv2_d_downsample/~/batchnorm"
# Haiku's own running sums, from which the averages are made.
_UNUSED_STATE = ("hidden", "counter")


def load_deepmind(
    path: str | Path, load_weights: bool = True, **overrides: Any
) -> PerceiverClassifier:
    """Creates an image classifier of Perceiver IO from a file that DeepMind has published.

    The files are `imagenet_fourier_position_encoding.pystate`,
    `imagenet_learned_position_encoding.pystate` and
    `imagenet_conv_preprocessing.pystate`. The parameters are under CC BY 4.0. The
    activation is the tanh approximation of the GELU, as in DeepMind's code.

    Args:
        path: Path of the file. Nothing in it is executed.
        load_weights: Boolean. `False`: the settings only, with random weights.
        **overrides: Arguments of `Perceiver` by dotted paths, such as `use_remat`.

    Returns:
        `PerceiverClassifier` with the preprocessor of the images.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no such pickle, or if its arrays do not fit the model.
    """
    if not isinstance(path, (str, Path)) or not Path(path).is_file():
        raise FileNotFoundError(
            f"`path` must be a file that DeepMind has published. Received: path={path!r}, "
            "which is not a file. Download it, and give its path."
        )
    path = Path(path)
    source = _Arrays(path, read_pickle(path))
    name = next((p for key, p in _PRESETS.items() if f"{key}/w" in source), None)
    if name is None:
        raise ValueError(
            f"{path} must contain a Perceiver IO for images. Received: arrays "
            f"{sorted(source)[:5]}. Choose one of DeepMind's files for ImageNet."
        )
    model = _model(presets.built_in(name), source, overrides)
    if load_weights:
        load_tensors(model, pairs_of(model), source, overrides=overrides)
    return model


def _model(preset, source, overrides):
    num_latents, latent_dim = source.shape(
        f"{_ENCODER}/trainable_position_encoding/pos_embs"
    )
    num_self_attends = sum(
        key.startswith(f"{_ENCODER}/self_attention") and key.endswith("/mlp/linear/w")
        for key in source
    )
    encoder = preset.encoder.replace(
        {
            "num_latents": num_latents,
            "latent_dim": latent_dim,
            "num_self_attends_per_block": num_self_attends,
            "cross_attend.activation": gelu_tanh,
            "self_attend.activation": gelu_tanh,
            **overrides,
        }
    )()
    decoder = preset.decoder.replace(
        {
            "queries.query_dim": latent_dim,
            "cross_attend.activation": gelu_tanh,
        }
    )()
    preprocessor = ImagePreprocessor(
        encoder.modality.shape,
        value_range=(0.0, 1.0),
        crop_to_aspect_ratio=True,
        crop_fraction=224 / 256,
        interpolation="bicubic",
        mean=IMAGENET_MEAN,
        standard_deviation=IMAGENET_STANDARD_DEVIATION,
    )
    num_classes = source.shape(f"{_DECODER}/output/b")[0]
    return PerceiverClassifier(encoder, num_classes, preprocessor, decoder=decoder)


def pairs_of(model):
    """Returns the `Pair`s of a classifier of images with a decoder."""
    encoder, modality = model.encoder, model.encoder.modality
    trunk, decoder = encoder.iterative_attention, model.decoder
    pairs = [
        Pair(
            f"{_ENCODER}/trainable_position_encoding/pos_embs",
            encoder.latent_array.latents,
        ),
        *_block(f"{_ENCODER}/cross_attention", trunk.cross_attends[0]),
    ]
    for i, layer in enumerate(trunk.latent_transformers[0].self_attends):
        number = f"_{i}" if i else ""
        pairs += _block(f"{_ENCODER}/self_attention{number}", layer)
    if isinstance(modality, ConvImage):
        pairs += _convolution(modality)
    elif modality.projection_dim is not None:
        pairs += _learned_positions(modality)
    return [
        *pairs,
        Pair(
            f"{_DECODER}/~/trainable_position_encoding/pos_embs",
            decoder.queries.queries,
        ),
        *_block(f"{_DECODER}/cross_attention", decoder.cross_attend),
        *_linear(f"{_DECODER}/output", decoder.head),
    ]


def _block(place, block):
    norms = [block.query_norm, block.mlp_norm]
    if isinstance(block, CrossAttend):
        norms.insert(1, block.inputs_norm)
    linears = [block.query, block.key, block.value, block.output_projection]
    pairs = []
    for kind, layers, pair in (
        ("layer_norm", norms, _norm),
        ("attention/linear", linears, _linear),
        ("mlp/linear", [block.mlp_hidden, block.mlp_output], _linear),
    ):
        for i, layer in enumerate(layers):
            pairs += pair(f"{place}/{kind}{f'_{i}' if i else ''}", layer)
    return pairs


def _norm(place, layer):
    return [Pair(f"{place}/scale", layer.gamma), Pair(f"{place}/offset", layer.beta)]


def _linear(place, layer):
    return [Pair(f"{place}/w", layer.kernel), Pair(f"{place}/b", layer.bias)]


def _learned_positions(modality):
    place = "image_preprocessor/~_build_network_inputs"
    encoding, kernel = modality.position_encoding, modality.projection.kernel
    table = encoding.positions
    return [
        reshaped(f"{_STEM}/conv2_d/w", kernel, (1, 1, *kernel.shape)),
        Pair(f"{_STEM}/conv2_d/b", modality.projection.bias),
        reshaped(
            f"{place}/trainable_position_encoding/pos_embs",
            table,
            (-1, table.shape[-1]),
        ),
        *_linear(f"{place}/position_encoding_projector/linear", encoding.projection),
    ]


def _convolution(modality):
    norm, shape = modality.batch_norm, (1, 1, 1, modality.filters)
    place = f"{_BATCH_NORM}/~"
    return [
        Pair(f"{_STEM}/conv2_d_downsample/~/conv/w", modality.convolution.kernel),
        reshaped(f"{_BATCH_NORM}/scale", norm.gamma, shape),
        reshaped(f"{_BATCH_NORM}/offset", norm.beta, shape),
        reshaped(f"{place}/mean_ema/average", norm.moving_mean, shape),
        reshaped(f"{place}/var_ema/average", norm.moving_variance, shape),
    ]


class _Arrays(Mapping):
    """The arrays of a file by the names of module and parameter."""

    def __init__(self, path, content):
        self._path, self._arrays = path, {}
        parts = [content]
        if isinstance(content, dict) and set(content) == {"params", "state"}:
            parts = [content["params"], content["state"]]
        for part in parts:
            for module, arrays in self._items(part):
                for name, array in self._items(arrays):
                    if name in _UNUSED_STATE:
                        continue
                    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
                        raise ValueError(
                            f"{path} must contain arrays of floats. Received: "
                            f"{type(array).__name__} as {module}/{name}. Get the file "
                            "again."
                        )
                    self._arrays[f"{module}/{name}"] = array

    def _items(self, mapping):
        if not isinstance(mapping, dict) or not all(
            isinstance(k, str) for k in mapping
        ):
            raise ValueError(
                f"{self._path} must contain arrays by module and name. Received: "
                f"{type(mapping).__name__}. Choose one of DeepMind's files for ImageNet."
            )
        return mapping.items()

    def shape(self, name):
        return self._arrays[name].shape

    def __getitem__(self, name):
        return self._arrays[name]

    def __iter__(self):
        return iter(self._arrays)

    def __len__(self):
        return len(self._arrays)

    def __str__(self):
        return str(self._path)


class _Unpickler(pickle.Unpickler):
    """Reads NumPy arrays and mappings, and refuses all other names."""

    def find_class(self, module, name):
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed.")


def _numpy_function(name):
    multiarray = np.ones(1).__reduce__()[0].__module__  # NumPy 2 has renamed it
    return getattr(__import__(multiarray, fromlist=[name]), name)


_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    **{
        (f"numpy.{core}.multiarray", name): _numpy_function(name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    },
    # Old and new names of Haiku's mapping, which is pickled as a plain one.
    **{
        ("haiku._src.data_structures", name): dict
        for name in ("FlatMapping", "FlatMap", "frozendict")
    },
    ("collections", "OrderedDict"): dict,
}


def read_pickle(path):
    """Returns what a pickle of NumPy arrays in mappings holds, with plain dicts.

    Args:
        path: Path of the file.

    Raises:
        ValueError: if it holds anything else, or is damaged.
    """
    try:
        with Path(path).open("rb") as file:
            return _Unpickler(file).load()
    except OSError:
        raise
    except Exception as error:  # of any class, as the file is damaged
        raise ValueError(
            f"{path} must be a pickle of NumPy arrays in mappings. Received: "
            f"{type(error).__name__}: {error} Nothing of it was run. Get the file again."
        ) from error
