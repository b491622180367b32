"""Low-rank adaptation (LoRA) of the linear layers of a model."""

import os

import h5py
import keras

from keras_perceiver._checks import check_positive
from keras_perceiver.layers.composite import inner_layers

LORA_LAYER_NAMES = ("query", "value")
_SUFFIX = ".lora.h5"
_WEIGHTS = ("lora_kernel_a", "lora_kernel_b")


def enable_lora(model, rank, target_layer_names=LORA_LAYER_NAMES):
    """Freezes all layers of a model and adds adapters to some of them.

    In the `.keras` file of the model, adapters are merged into the weights.

    Reference:
        [Hu et al., 2021](https://arxiv.org/abs/2106.09685).

    Args:
        model: Built Keras model.
        rank: Integer, rank of the adapters.
        target_layer_names: Sequence of strings, names of linear layers.

    Raises:
        ValueError: if the rank is not positive, if a name is not that of a linear layer,
            or if the model has adapters already.
    """
    check_positive(rank=rank)
    layers = _linear_layers(model)
    unknown = sorted(
        set(target_layer_names) - {layer.name for layer in layers.values()}
    )
    if unknown or not target_layer_names:
        raise ValueError(
            "`target_layer_names` must be names of linear layers in the model. Received: "
            f"{list(target_layer_names)} with the unknown {unknown}. Choose from "
            f"{sorted({layer.name for layer in layers.values()})}."
        )
    _add_adapters(
        model,
        {p: rank for p, layer in layers.items() if layer.name in target_layer_names},
    )


def save_lora_weights(model, filepath):
    """Saves the adapters of a model, without its other weights.

    Args:
        model: Keras model with adapters.
        filepath: Path that ends with `.lora.h5`.

    Raises:
        ValueError: if the path does not end with `.lora.h5`, or if there are no
            adapters.
    """
    _check_suffix(filepath)
    adapted = _adapted(model)
    if not adapted:
        raise ValueError(
            f"A model must have adapters to save them. Received: {model.name!r} without "
            "adapters. Call `enable_lora(rank)` and train it first."
        )
    with h5py.File(filepath, "w") as file:
        for path, layer in adapted.items():
            for name in _WEIGHTS:
                weights = keras.ops.convert_to_numpy(getattr(layer, name))
                file.create_dataset(f"{path}/{name}", data=weights)


def load_lora_weights(model, filepath):
    """Loads adapters into a model of the architecture that they were saved from.

    Args:
        model: Built Keras model. If it has no adapters, those of the file are added,
            and all other layers are frozen.
        filepath: Path that ends with `.lora.h5`.

    Raises:
        ValueError: if the path does not end with `.lora.h5`, or if the adapters of the
            file do not match the model.
    """
    _check_suffix(filepath)
    with h5py.File(filepath, "r") as file:
        saved = {}
        file.visititems(
            lambda name, item: (
                saved.update({name: item[()]})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    ranks = {
        os.path.dirname(name): values.shape[1]
        for name, values in saved.items()
        if name.endswith(_WEIGHTS[0])
    }
    layers, adapted = _linear_layers(model), _adapted(model)
    is_fit = ranks and set(ranks) == set(adapted or ranks) and set(ranks) <= set(layers)
    if is_fit and not adapted:
        _add_adapters(model, ranks)
    shapes = {
        f"{path}/{name}": tuple(getattr(layer, name).shape)
        for path, layer in _adapted(model).items()
        for name in _WEIGHTS
    }
    found = {name: values.shape for name, values in saved.items()}
    if not is_fit or found != shapes:
        differing = sorted(
            n for n in {*found, *shapes} if found.get(n) != shapes.get(n)
        )
        raise ValueError(
            "Adapters must match the model. Received: "
            f"{str(filepath)!r}, which differs from {model.name!r} in {differing}. Load "
            "them into a model of the architecture that they were saved from."
        )
    for name, values in saved.items():
        path, name = os.path.split(name)
        getattr(layers[path], name).assign(values)


def _add_adapters(model, ranks):
    """Freezes the layers of a model, and adds adapters, given ranks by layer path."""
    if _adapted(model):
        raise ValueError(
            "Adapters can be added only once. Received: a model that has them in "
            f"{sorted(_adapted(model))}. Save and load the model, which merges them."
        )
    layers = _linear_layers(model)
    for layer in model.layers:
        layer.trainable = False
    for path, rank in ranks.items():
        layers[path].trainable = True
        layers[path].enable_lora(rank)


def _linear_layers(model):
    """Returns the layers that can have adapters, by their paths."""
    return {
        path: layer
        for path, layer, _ in inner_layers(model)
        if isinstance(layer, keras.layers.Dense)
    }


def _adapted(model):
    return {p: x for p, x in _linear_layers(model).items() if x.lora_enabled}


def has_adapters(model):
    """Returns whether a model has adapters."""
    return bool(_adapted(model))


def _check_suffix(filepath):
    if not str(filepath).endswith(_SUFFIX):
        raise ValueError(
            f"`filepath` must end with {_SUFFIX!r}. Received: filepath={filepath!r}. "
            "Rename it."
        )
