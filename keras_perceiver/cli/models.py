"""Loads saved models, with errors that name the file, and the metrics next to them."""

import keras

from keras_perceiver._files import read_json
from keras_perceiver._runs import METRICS
from keras_perceiver.cli import console
from keras_perceiver.models import Perceiver, PerceiverClassifier, Task, handles
from keras_perceiver.models.presets import PRESETS
from keras_perceiver.serving.card import weights_hash

_MAX_REASON = 300  # characters, since errors of Keras may contain the whole config


def load(path, is_task=False):
    """Returns the `Perceiver` or the task in a `.keras` file.

    Args:
        path: Path of the file, see `keras_perceiver.cli.arguments.model_file`.
        is_task: Boolean, whether it must be a task.

    Raises:
        ValueError: if it cannot be loaded.
        TypeError: if it is not a model of this package, or not a task.
    """
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # a file may contain anything
        reason = " ".join(str(error).split()) or type(error).__name__
        if len(reason) > _MAX_REASON:
            reason = f"{reason[:_MAX_REASON]} ..."
        raise ValueError(
            f"Keras must be able to load the model. Received: {str(path)!r}: {reason} Save "
            "it again with the installed version of the package."
        ) from error
    if not isinstance(model, Task if is_task else (Perceiver, Task)):
        rule = "a task" if is_task else "a `Perceiver` or a task"
        raise TypeError(
            f"The model must be {rule} of this package. Received: "
            f"{str(path)!r}, a {type(model).__name__}. Choose another file."
        )
    return model


def from_preset(name):
    """Returns the model of a preset, or what is in its folder or on a hub.

    It prints a warning for a built-in preset, which has no trained weights.

    Args:
        name: String, see `PerceiverClassifier.from_preset`.

    Raises:
        ValueError: if it cannot be loaded.
        FileNotFoundError: if there is no such folder or model.
    """
    if name not in PRESETS:
        return handles.load(name)
    console.say(
        f"warning: the preset {name} has random weights; its answers are random"
    )
    return PerceiverClassifier.from_preset(name)


def metrics(path, model):
    """Returns the metrics next to a `.keras` file, if they belong to its weights.

    Otherwise it prints a warning, for example after another model was copied there.

    Args:
        path: Path of the file.
        model: Model that `load` returned for it.

    Returns:
        Dict, which is empty if there are none.
    """
    metrics_path = path.with_name(METRICS)
    if not metrics_path.is_file():
        return {}
    found = read_json(metrics_path)
    if found.get("weights_sha256") == weights_hash(model):
        return found
    console.say(
        f"warning: {metrics_path} has the metrics of other weights than {path.name}, and "
        "is not used"
    )
    return {}
