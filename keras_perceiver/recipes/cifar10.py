"""CIFAR-10: a small Perceiver on photographs of 32 x 32 pixels.

Command:   keras-perceiver train cifar10, which downloads the data to
           ~/tensorflow_datasets, or to DIR with --data DIR, if necessary
Hardware:  not run here
Time:      not measured here
Score:     not measured here: the data need a download. The paper has no such
           experiment, so the settings are our choice
"""

from keras_perceiver.config import Config
from keras_perceiver.data import cifar10
from keras_perceiver.modalities import Image
from keras_perceiver.models import PerceiverClassifier
from keras_perceiver.recipes._paper import DEFAULT_FOLDER
from keras_perceiver.recipes._small import SCHEDULE, adamw, small_encoder
from keras_perceiver.training import Recipe

_SHAPE = (32, 32, 3)

RECIPE = Recipe(
    name="cifar10",
    data=Config(cifar10, folder=DEFAULT_FOLDER, download=True),
    task=PerceiverClassifier,
    model=small_encoder(
        Config(Image, shape=_SHAPE, num_bands=16, patch_size=2),
        num_latents=64,
        latent_dim=192,
        num_blocks=3,
        num_self_attends_per_block=3,
        dropout=0.1,
    ),
    optimizer=adamw(1e-3),
    schedule=SCHEDULE,
    epochs=200,
    batch_size=128,
    label_smoothing=0.1,
    ema_momentum=0.999,
)
