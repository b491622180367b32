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
        if folder.suffix == ".keras":
            on_hub = "; a `.keras` file is loaded by `keras.saving.load_model`"
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

    Raises:
        FileExistsError: if the folder has a `config.json` of another kind.
    """
    folder = new_folder(folder, lambda config: "registered_name" in config)
    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)  # how it was trained is no part of it
    replace_file(folder / WEIGHTS_FILE, model.save_weights)
    config[_HASH] = file_hash(folder / WEIGHTS_FILE)
    text = json.dumps(config, indent=2)
    replace_file(folder / CONFIG_FILE, lambda path: path.write_text(text))


def new_folder(folder, is_ours):
    """Creates a folder for a model, and returns its path.

    Args:
        folder: Path.
        is_ours: Callable that returns whether a `config.json` may be replaced.

    Raises:
        FileExistsError: if the folder has another one.
    """
    folder = Path(folder)
    file = folder / CONFIG_FILE
    if file.is_file() and not is_ours(read_json(file)):
        raise FileExistsError(
            "The folder must be new, empty, or one of an earlier model of the same kind. "
            f"Received: {str(folder)!r}, whose `{CONFIG_FILE}` is of another kind. Choose "
            "another folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _own(folder, config):
    name = config.get("registered_name")
    if not isinstance(name, str):
        return None
    cls = keras.saving.get_registered_object(name)
    if cls is None:
        raise ValueError(
            f"The class of the model in {folder / CONFIG_FILE} must be registered. "
            f"Received: registered_name={name!r}. Import the module that defines it, or "
            "choose another model."
        )
    if not (isinstance(cls, type) and hasattr(cls, "save_to_preset")):
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
    """Changes the arguments of the encoder in the config of a model.

    A preprocessor gets those that it shares with its modality, such as the shape.
    """
    encoder = config["config"].get("encoder", config)
    own = encoder["config"]
    own.pop("inner_settings", None)
    arguments = {
        name: keras.saving.deserialize_keras_object(_not_built(value))
        if isinstance(value, dict)
        else value
        for name, value in own.items()
        if name not in ("name", "trainable")
    }
    cls = keras.saving.get_registered_object(encoder["registered_name"])
    changed = Config(cls, **arguments).replace(overrides)()
    encoder["config"] = {**changed.get_config(), "name": own["name"]}
    preprocessors = config["config"].get("preprocessor") or {}
    if "registered_name" in preprocessors:
        preprocessors = dict.fromkeys(changed.modalities, preprocessors)
    names = {path.rpartition(".")[2] for path in overrides}
    for name, preprocessor in preprocessors.items():
        settings = changed.modalities[name].get_config()
        own = preprocessor["config"]
        own.update({k: settings[k] for k in names & own.keys() & settings.keys()})


def _not_built(config):
    """Returns the config of a Keras object without what would build its layers."""
    if not isinstance(config, dict):
        return config
    return {k: _not_built(v) for k, v in config.items() if k != "build_config"}
