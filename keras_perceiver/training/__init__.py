"""Training: what a recipe is, and how one is run."""

from keras_perceiver.training.train import PRECISIONS, Recipe, train

__all__ = ["PRECISIONS", "Recipe", "train"]
