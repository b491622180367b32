"""Attention: the function `attend`, and the kernels that compute it."""

from keras_perceiver.layers.attention.attend import attend, attention_scores
from keras_perceiver.layers.attention.chunked import Chunked
from keras_perceiver.layers.attention.jax_fused import JaxFused
from keras_perceiver.layers.attention.plain import Plain
from keras_perceiver.layers.attention.problem import PerDevice, Problem
from keras_perceiver.layers.attention.table import KERNELS, use_kernel
from keras_perceiver.layers.attention.torch_fused import TorchFused
from keras_perceiver.layers.portable import use_portable_kernels

__all__ = [
    "KERNELS",
    "Chunked",
    "JaxFused",
    "PerDevice",
    "Plain",
    "Problem",
    "TorchFused",
    "attend",
    "attention_scores",
    "use_kernel",
    "use_portable_kernels",
]
