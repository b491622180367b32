"""The Perceiver for Keras 3."""

from keras_perceiver.layers import (
    CrossAttend,
    FourierPositionEncoding,
    IterativeAttention,
    LatentArray,
    LatentTransformer,
    LearnedPositionEncoding,
    SelfAttend,
    attend,
)
from keras_perceiver.modalities import Image
from keras_perceiver.models import Perceiver, PerceiverClassifier, flops
from keras_perceiver.serving import export_for_serving

__version__ = "0.1.0"

__all__ = [
    "CrossAttend",
    "FourierPositionEncoding",
    "Image",
    "IterativeAttention",
    "LatentArray",
    "LatentTransformer",
    "LearnedPositionEncoding",
    "Perceiver",
    "PerceiverClassifier",
    "SelfAttend",
    "attend",
    "export_for_serving",
    "flops",
]
