"""Datasets in the shapes of the paper's models, one per file.

All but `digits` and `draw_letters` take `folder`, where the data are or will be prepared,
`mock=True` for a few random examples that are processed like real ones, and as
`**options` other arguments of `tfds_splits`, such as `num_processes`, `process_index`,
`download` and the splits.
"""

from keras_perceiver.data.datasets.audioset import audioset
from keras_perceiver.data.datasets.cifar10 import cifar10
from keras_perceiver.data.datasets.digits import digits
from keras_perceiver.data.datasets.fashion_mnist import fashion_mnist
from keras_perceiver.data.datasets.imagenet import imagenet
from keras_perceiver.data.datasets.letters import draw_letters
from keras_perceiver.data.datasets.mnist import mnist
from keras_perceiver.data.datasets.modelnet40 import modelnet40
from keras_perceiver.data.datasets.speech_commands import speech_commands

__all__ = [
    "audioset",
    "cifar10",
    "digits",
    "draw_letters",
    "fashion_mnist",
    "imagenet",
    "mnist",
    "modelnet40",
    "speech_commands",
]
