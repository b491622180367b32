"""Hyperparameter search with KerasTuner, from the space to the table of trials."""

from keras_perceiver.tuning.hyper_model import PerceiverHyperModel
from keras_perceiver.tuning.oracles import ALGORITHMS, Budget
from keras_perceiver.tuning.results import (
    pareto_front,
    plot_trials,
    read_trials,
    write_trials,
)
from keras_perceiver.tuning.search import make_tuner, search, table

__all__ = [
    "ALGORITHMS",
    "Budget",
    "PerceiverHyperModel",
    "make_tuner",
    "pareto_front",
    "plot_trials",
    "read_trials",
    "search",
    "table",
    "write_trials",
]
