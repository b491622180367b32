"""Handles of pretrained models: built-in names, folders and hubs, as KerasHub has them."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import keras

from keras_perceiver._files import file_hash, read_json, replace_file
from keras_perceiver.config import Config

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.weights.h5"
_HASH = "weights_sha256"
_HUB = "hf://"
# What is downloaded: never code, nor the same weights in other forms.
_HUB_FILES = ("*.json", "*.safetensors", WEIGHTS_FILE, "pytorch_model*.bin")

# Callables `(folder, config)` that return a callable `(num_classes, load_weights,
# overrides)` that loads a model, or `None` where the folder is of another kind.
# `keras_perceiver.convert` adds those of other packages.
LOADERS: list[Callable[[Path, dict], Callable | None]] = []


def is_handle(name):
    """Returns whether a name that is not built in is that of a folder or on a hub."""
    is_path = isinstance(name, os.PathLike)
    if not is_path and not isinstance(name, str):
        raise TypeError(
            "`name` must be a preset, a folder, or 'hf://<owner>/<model>'. Received: "
            f"name={name!r}. Give a string or a path."
        )
    return is_path or "://" in name or os.sep in name or Path(name).is_dir()


def folder_of(handle):
    """Returns the folder of a handle, which is downloaded if it is on a hub.

    Args:
        handle: Path of a folder, or string `"hf://<owner>/<model>"`, optionally with
            `"@<revision>"` at the end.

    Raises:
        ValueError: if the handle has another form.
        FileNotFoundError: if there is no such folder, or no such model.
        ImportError: if `huggingface_hub` is needed and not installed.
    """
    text = os.fspath(handle)
    if text.startswith(_HUB):
        return _downloaded(text.removeprefix(_HUB), text)
    if "://" in text:
        raise ValueError(
            f"A handle must be a folder or begin with {_HUB!r}. Received: {text!r}. Give "
            f"for example '{_HUB}deepmind/vision-perceiver-fourier'."
        )
    folder = Path(text)
    if not (folder / CONFIG_FILE).is_file():
        on_hub = ""
        if not folder.exists() and text.count("/") == 1 and text[0] not in "./":
            on_hub = f", or {_HUB + text!r} for a model on Hugging Face's hub"
        raise FileNotFoundError(
            f"A preset folder must contain `{CONFIG_FILE}`. Received: {text!r}, which "
            f"{'has none' if folder.is_dir() else 'is no folder'}. Give a folder that "
            f"`save_to_preset` or `transformers` has written{on_hub}."
        )
    return folder


def _downloaded(name, handle):
    repository, _, revision = name.partition("@")
    if repository.count("/") != 1:
        raise ValueError(
            f"A handle of a hub must be '{_HUB}<owner>/<model>'. Received: {handle!r}. "
            f"Give for example '{_HUB}deepmind/vision-perceiver-fourier'."
        )
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            f"Loading {handle!r} needs huggingface_hub. Install it: pip install "
            '"keras_perceiver[hub]".'
        ) from error
    try:
        return Path(
            huggingface_hub.snapshot_download(
                repository, revision=revision or None, allow_patterns=list(_HUB_FILES)
            )
        )
    except Exception as error:  # of many classes, by what went wrong on the way
        raise FileNotFoundError(
            f"{handle!r} could not be downloaded. Received: "
            f"{type(error).__name__}: {str(error).strip().splitlines()[0]} Check the "
            "name and the connection; without one, download the files on another machine "
            "and give their folder."
        ) from error


def load(handle, num_classes=None, load_weights=True, overrides=None):
    """Loads a model from a folder or a hub.

    Args:
        handle: See `folder_of`.
        num_classes: Integer, number of classes, or `None` for those of the model.
        load_weights: Boolean, whether the weights are loaded besides the settings.
        overrides: Mapping of arguments of `Perceiver` by dotted paths, or `None`.

    Raises:
        ValueError: if no loader knows the folder.
    """
    folder = folder_of(handle)
    config = read_json(folder / CONFIG_FILE)
    for loader in [_own, *LOADERS]:
        if (found := loader(folder, config)) is not None:
            return found(num_classes, load_weights, overrides)
    raise ValueError(
        f"{folder / CONFIG_FILE} must describe a Perceiver. Received: model_type="
        f"{config.get('model_type')!r}, architectures={config.get('architectures')}. "
        "Choose another model."
    )


def save(model, folder):
    """Writes a model, its preprocessor and its class names as a preset folder.

    Args:
        model: Task or `Perceiver`.
        folder: Path of a folder, which is created.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)  # how it was trained is no part of it
    replace_file(folder / WEIGHTS_FILE, model.save_weights)
    config[_HASH] = file_hash(folder / WEIGHTS_FILE)
    text = json.dumps(config, indent=2)
    replace_file(folder / CONFIG_FILE, lambda path: path.write_text(text))


def _own(folder, config):
    if not str(config.get("registered_name", "")).startswith("keras_perceiver>"):
        return None

    weights, expected = folder / WEIGHTS_FILE, config.pop(_HASH, None)

    def load(num_classes, load_weights, overrides):
        is_whole = weights.is_file() and file_hash(weights) == expected
        if load_weights and not is_whole:
            raise ValueError(
                f"{weights} must be the weights that `{CONFIG_FILE}` was written with. "
                f"Received: {'other content' if weights.is_file() else 'no file'}. It may "
                "be damaged or incomplete. Get both files again."
            )
        if overrides:
            _override(config, overrides)
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
        if load_weights:
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("error", "Skipping nested container")
                    model.load_weights(weights)
            except (ValueError, UserWarning) as error:  # of shapes, as it is whole
                raise ValueError(
                    f"{weights} must fit the settings of the model. Received: weights of "
                    "other layers or shapes. "
                    f"{fit_fix(overrides, 'Get both files again.')}"
                ) from error
        own = getattr(model, "num_classes", num_classes)  # an encoder has none
        if num_classes in (None, own):
            return model
        return model.with_num_classes(num_classes)

    return load


def fit_fix(overrides, otherwise):
    """Returns the fix of an error for weights that do not fit the model.

    Args:
        overrides: Mapping of arguments that the caller has changed, or `None`.
        otherwise: String, the fix if there are none.
    """
    if not overrides:
        return otherwise
    return (
        f"Leave out those of the arguments {sorted(overrides)} that change the weights, "
        "or pass `load_weights=False`."
    )


def _override(config, overrides):
    """Changes the arguments of the encoder in the config of a model."""
    encoder = config["config"].get("encoder", config)
    own = encoder["config"]
    own.pop("inner_settings", None)
    arguments = {
        name: keras.saving.deserialize_keras_object(value)
        if isinstance(value, dict)
        else value
        for name, value in own.items()
        if name not in ("name", "trainable")
    }
    cls = keras.saving.get_registered_object(encoder["registered_name"])
    changed = Config(cls, **arguments).replace(overrides)()
    encoder["config"] = {**changed.get_config(), "name": own["name"]}
