"""Training: recipes, runs, optimizers and schedules."""

from keras_perceiver.models.fine_tuning import fine_tuned_classifier, preprocessor_of
from keras_perceiver.training.evaluate import evaluate, write_report
from keras_perceiver.training.fit import compile_task
from keras_perceiver.training.lamb import Lamb
from keras_perceiver.training.layer_rates import LayerwiseOptimizer, layer_rates
from keras_perceiver.training.plots import draw_report
from keras_perceiver.training.recipe import PRECISIONS, Recipe
from keras_perceiver.training.resume import (
    NonFiniteLossError,
    TrainingInterruptedError,
    saved_overrides,
)
from keras_perceiver.training.run import Run
from keras_perceiver.training.schedules import flat_cosine, step_decay, warm_cosine
from keras_perceiver.training.tracking import TrackingOptimizer
from keras_perceiver.training.train import train

__all__ = [
    "PRECISIONS",
    "Lamb",
    "LayerwiseOptimizer",
    "NonFiniteLossError",
    "Recipe",
    "Run",
    "TrackingOptimizer",
    "TrainingInterruptedError",
    "compile_task",
    "draw_report",
    "evaluate",
    "fine_tuned_classifier",
    "flat_cosine",
    "layer_rates",
    "preprocessor_of",
    "saved_overrides",
    "step_decay",
    "train",
    "warm_cosine",
    "write_report",
]
