"""Models: the encoder, the classifier, their presets and their FLOPs."""

from keras_perceiver.models.classifier import PerceiverClassifier
from keras_perceiver.models.flops import flops
from keras_perceiver.models.perceiver import Perceiver

__all__ = ["Perceiver", "PerceiverClassifier", "flops"]
