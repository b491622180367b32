"""Pretrained models in recipes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_perceiver._checks import check_choice
from keras_perceiver.models.encoder import Perceiver
from keras_perceiver.models.tasks import PerceiverClassifier

if TYPE_CHECKING:
    from keras_perceiver._typing import Preprocessors
    from keras_perceiver.config import Config

_PARTS = ("all", "head")


def preprocessor_of(model: Config) -> Preprocessors:
    """Returns the preprocessor of a recipe's pretrained model, without its weights.

    Args:
        model: `Config` of `PerceiverClassifier.from_preset`, or of another function with
            the argument `load_weights`.

    Raises:
        ValueError: if the model has none.
    """
    preprocessor = getattr(model(load_weights=False), "preprocessor", None)
    if preprocessor is None:
        raise ValueError(
            f"The preset must have a preprocessor. Received: {model!r}, which has "
            "none. Set `preprocessor` to one that makes what the model was trained on."
        )
    return preprocessor


def fine_tuned_classifier(
    encoder: Perceiver | PerceiverClassifier,
    num_classes: int,
    class_names: Sequence[str] | None = None,
    preprocessor: Preprocessors | None = None,
    trained: str = "all",
    lora_rank: int | None = None,
) -> PerceiverClassifier:
    """Returns a classifier with a new head on a pretrained model, for a `Recipe`.

    Args:
        encoder: Pretrained `Perceiver`, or a pretrained classifier, whose decoder is used
            too, but for its last layer.
        num_classes: Integer, number of classes.
        class_names: Sequence of strings, the names of the classes, or `None`.
        preprocessor: `Preprocessor` of the files, or dict of these. Defaults to that of
            the pretrained classifier.
        trained: String. `"all"`: all weights are trained. `"head"`: the encoder is
            frozen.
        lora_rank: Integer, rank of adapters that are trained in place of the kernels of
            the encoder, or `None`.

    Raises:
        ValueError: if `trained` is unknown, or if adapters would be frozen.
    """
    check_choice("`trained`", trained, _PARTS)
    if trained == "head" and lora_rank is not None:
        raise ValueError(
            "`lora_rank` adapts the encoder, which `trained='head'` freezes. Received: "
            f"lora_rank={lora_rank}. Set one of them."
        )
    if isinstance(encoder, Perceiver):
        model = PerceiverClassifier(encoder, num_classes)
    else:
        model = encoder.with_num_classes(num_classes)
    model.class_names = class_names
    if preprocessor is not None:
        model.preprocessor = preprocessor
    if trained == "head":
        model.encoder.trainable = False
    if lora_rank is not None:
        model.encoder.enable_lora(lora_rank)
    return model
