"""Layers: attention, the Perceiver's blocks, learned arrays, position encodings."""

from keras_perceiver.layers.arrays import LatentArray
from keras_perceiver.layers.attention import attend
from keras_perceiver.layers.blocks import (
    CrossAttend,
    IterativeAttention,
    LatentTransformer,
    SelfAttend,
)
from keras_perceiver.layers.byte_array import ByteArray
from keras_perceiver.layers.position import (
    FourierPositionEncoding,
    LearnedPositionEncoding,
)

__all__ = [
    "ByteArray",
    "CrossAttend",
    "FourierPositionEncoding",
    "IterativeAttention",
    "LatentArray",
    "LatentTransformer",
    "LearnedPositionEncoding",
    "SelfAttend",
    "attend",
]
