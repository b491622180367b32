"""Layers: attention blocks, latents, position encodings."""

from keras_perceiver.layers.activations import gelu_tanh
from keras_perceiver.layers.arrays import LatentArray
from keras_perceiver.layers.attention import attend
from keras_perceiver.layers.attention_block import AttentionBlock
from keras_perceiver.layers.cross_attend import CrossAttend
from keras_perceiver.layers.iterative_attention import IterativeAttention
from keras_perceiver.layers.latent_transformer import LatentTransformer
from keras_perceiver.layers.learned_position import LearnedPositionEncoding
from keras_perceiver.layers.position import FourierPositionEncoding
from keras_perceiver.layers.self_attend import SelfAttend

__all__ = [
    "AttentionBlock",
    "CrossAttend",
    "FourierPositionEncoding",
    "IterativeAttention",
    "LatentArray",
    "LatentTransformer",
    "LearnedPositionEncoding",
    "SelfAttend",
    "attend",
    "gelu_tanh",
]
