"""The explorer: a local page on which one gives a model inputs, and sees what it does."""

from keras_perceiver.explorer.answers import Answer, Explorer
from keras_perceiver.explorer.sources import Source

__all__ = ["Answer", "Explorer", "Source"]
