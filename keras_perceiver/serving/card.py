"""`model_card.json`: the signatures, sizes and metrics of an exported model."""

import hashlib
import importlib.metadata
import json
from pathlib import Path

import keras
import numpy as np

from keras_perceiver._files import read_json
from keras_perceiver.models import flops

NAME = "model_card.json"
_PACKAGES = ("keras_perceiver", "keras", "tensorflow", "jax", "torch", "numpy")


def text(model, signatures, weights, difference, metrics, notes=()):
    """Returns the card as JSON.

    Args:
        model: `Perceiver` or a task.
        signatures: Dict from signature names to their tables of inputs.
        weights: String, how weights are stored.
        difference: Dict of the effects of quantized weights, empty for float32.
        metrics: Dict of metrics and other information about the model, or `None`.
        notes: Sequence of strings, sentences for users of the export.
    """
    metrics = metrics or {}
    return (
        json.dumps(
            {
                "name": model.name,
                "class": type(model).__name__,
                "recipe": metrics.get("recipe"),
                "parameters": model.count_params(),
                "flops_per_example": _flops(model),
                "weights": {
                    "sha256": weights_hash(model),
                    "stored_as": weights,
                    **difference,
                },
                "signatures": signatures,
                **model.card_entries(),
                "metrics": metrics,
                "notes": list(notes),
                "backend": keras.backend.backend(),
                "versions": installed_versions(),
            },
            indent=2,
        )
        + "\n"
    )


def weights_hash(model):
    """Returns the hexadecimal SHA-256 of the paths, shapes and values of the weights."""
    digest = hashlib.sha256()
    for weight, array in zip(model.weights, model.get_weights(), strict=True):
        # The first part of a path is the name of the model, which Keras numbers.
        name = weight.path.split("/", 1)[-1]
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def version_of_weights(folder, digest):
    """Returns the latest exported version with the same float32 weights.

    Args:
        folder: Path of the folder with the numbered versions, which may be missing.
        digest: String, result of `weights_hash`, or `None`.

    Returns:
        Path of the version, or `None` if there is none.
    """
    if digest is None:
        return None
    cards = [
        path for path in Path(folder).glob(f"*/{NAME}") if path.parent.name.isdigit()
    ]
    for path in sorted(cards, key=lambda path: int(path.parent.name), reverse=True):
        weights = read_json(path)["weights"]
        if (weights["sha256"], weights["stored_as"]) == (digest, "float32"):
            return path.parent
    return None


def installed_versions():
    """Returns the versions of the packages that a model depends on, by name."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # backends are optional
    return versions


def _flops(model):
    if any(modality.num_inputs is None for modality in model.modalities.values()):
        return None  # it depends on the lengths
    return flops(model)
