"""MNIST: a small Perceiver on handwritten digits of 28 x 28 pixels.

Command:   keras-perceiver train mnist, which downloads the data to
           ~/tensorflow_datasets, or to DIR with --data DIR, if necessary
Hardware:  not run here
Time:      not measured here
Score:     not measured here: the data need a download. The paper has no such
           experiment, so the settings are our choice
"""

from keras_perceiver.config import Config
from keras_perceiver.data import mnist
from keras_perceiver.modalities import Image
from keras_perceiver.models import PerceiverClassifier
from keras_perceiver.recipes._paper import DEFAULT_FOLDER
from keras_perceiver.recipes._small import SCHEDULE, adamw, small_encoder
from keras_perceiver.training import Recipe

_SHAPE = (28, 28, 1)

RECIPE = Recipe(
    name="mnist",
    data=Config(mnist, folder=DEFAULT_FOLDER, download=True),
    task=PerceiverClassifier,
    model=small_encoder(
        Config(Image, shape=_SHAPE, num_bands=8, patch_size=2),
        dropout=0.1,
        element_dropout=0.1,
    ),
    optimizer=adamw(2e-3),
    schedule=SCHEDULE,
    epochs=40,
    batch_size=128,
    label_smoothing=0.1,
    ema_momentum=0.999,
)
