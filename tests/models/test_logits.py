"""Losses and metrics of logits must take logits."""

import keras
import pytest

from tests.models.small import classifier

_LOSSES = keras.losses
_METRICS = keras.metrics


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("argument", "given"),
    [
        ("loss", "sparse_categorical_crossentropy"),
        ("loss", "CategoricalCrossentropy"),
        ("loss", _LOSSES.categorical_crossentropy),
        ("loss", [_LOSSES.BinaryCrossentropy()]),
        ("loss", {"logits": _LOSSES.CategoricalFocalCrossentropy()}),
        ("metrics", ["accuracy", "AUC"]),
        ("metrics", [_METRICS.SparseCategoricalCrossentropy()]),
        ("weighted_metrics", [_METRICS.BinaryCrossentropy()]),
    ],
)
def test_probabilities_are_refused(argument, given):
    model = classifier()
    with pytest.raises(ValueError, match=f"`{argument}` must take.*from_logits=True"):
        model.compile("sgd", **{argument: given})


@pytest.mark.one_backend
@pytest.mark.parametrize(
    "options",
    [
        {"loss": _LOSSES.SparseCategoricalCrossentropy(from_logits=True)},
        {"loss": "mse", "metrics": ["accuracy", "mae"]},
        {"loss": lambda y_true, y_pred: _LOSSES.mse(y_true, y_pred)},
        {"metrics": [_METRICS.AUC(from_logits=True), "sparse_categorical_accuracy"]},
        {"loss": None},
        {"loss": "sparse_crossentropy"},  # unknown: an error of Keras, in `fit`
    ],
)
def test_logits_and_others_are_taken(options):
    classifier().compile("sgd", **options)
