"""MNIST: a small Perceiver on handwritten digits of 28 x 28 pixels.

Command:   make train RECIPE=mnist, which downloads the data to
           ~/tensorflow_datasets, or to DIR with ARGS="--data DIR", if they are not there
Hardware:  not run here
Time:      not measured here
Score:     not measured here: the data need a download. The paper has no such experiment;
           the settings are our choice
"""

from functools import partial

from keras_perceiver.data import ImageFiles, mnist
from keras_perceiver.modalities import Image
from keras_perceiver.recipes._paper import DEFAULT_FOLDER
from keras_perceiver.recipes._small import optimizer, small_classifier
from keras_perceiver.training import Recipe

_SHAPE = (28, 28, 1)


def _modality():
    return Image(_SHAPE, num_bands=8, patch_size=2)


RECIPE = Recipe(
    name="mnist",
    data=partial(mnist, download=True),
    model=small_classifier(_modality, dropout=0.1, element_dropout=0.1),
    optimizer=optimizer(2e-3),
    epochs=40,
    batch_size=128,
    label_smoothing=0.1,
    reads_folder=True,
    default_folder=DEFAULT_FOLDER,
    smoke=partial(mnist, mock=True),
    files=lambda: ImageFiles(_SHAPE),
    ema_momentum=0.999,
)
