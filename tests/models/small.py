"""Small models and their data."""

import keras
import numpy as np

from keras_perceiver import (
    Image,
    Perceiver,
    PerceiverClassifier,
    SelfAttend,
    Sequence,
)

NUM_CLASSES = 4
SMALL = {
    "num_latents": 2,
    "latent_dim": 4,
    "num_blocks": 1,
    "num_self_attends_per_block": 1,
    "self_attend": SelfAttend(num_heads=1),
}


def encoder(**settings):
    return Perceiver(Image((3, 2, 1), num_bands=1), **SMALL, **settings)


def classifier(num_classes=NUM_CLASSES, cls=PerceiverClassifier, **settings):
    return cls(encoder(**settings), num_classes)


def text_classifier():
    return PerceiverClassifier(Perceiver(Sequence(5, 7, 3), **SMALL), NUM_CLASSES)


def images(batch=6):
    return np.random.default_rng(0).normal(size=(batch, 3, 2, 1)).astype("float32")


def labels(batch=6):
    return np.arange(batch) % NUM_CLASSES


def values(model):
    """Returns copies of the values of all weights."""
    return [weight.numpy().copy() for weight in model.weights]


class Batches(keras.utils.PyDataset):
    """A `PyDataset` of the given batches."""

    def __init__(self, *batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, i):
        return self.batches[i]
