"""Your own images in folders: a pretrained Perceiver with a new head.

Command:   keras-perceiver train fine_tune --data DIR, DIR with CLASS/FILE, or with train/
           and test/ of these. Another preset, such as a folder of `save_to_preset`:
           --set model.name=PRESET
Hardware:  a GPU with 16 GiB for all weights, which is estimated; a CPU for a few hundred
           images with --set task.trained=head
Time:      not measured
Score:     not measured: the published weights were not at hand
"""

import keras

from keras_perceiver.config import Config
from keras_perceiver.data import folder_splits, image_augmentation
from keras_perceiver.modalities import ImagePreprocessor
from keras_perceiver.models import PerceiverClassifier
from keras_perceiver.recipes import _mock
from keras_perceiver.recipes._small import SCHEDULE
from keras_perceiver.training import Recipe, fine_tuned_classifier, preprocessor_of


def _write_mock(folder):
    _mock.write_files(folder, ImagePreprocessor((32, 32, 3)))  # of any size


RECIPE = Recipe(
    name="fine_tune",
    data=Config(
        folder_splits, augment=Config(image_augmentation, rotation=0.02, zoom=0.1)
    ),
    task=Config(fine_tuned_classifier, trained="all", lora_rank=None),
    model=Config(
        PerceiverClassifier.from_preset,
        name="hf://deepmind/vision-perceiver-fourier",
        dtype=None,
    ),
    optimizer=Config(
        keras.optimizers.AdamW, learning_rate=1e-4, weight_decay=0.05, clipnorm=1.0
    ),
    schedule=SCHEDULE,
    epochs=10,
    batch_size=16,
    label_smoothing=0.1,
    layer_decay=0.8,
    preprocessor=preprocessor_of,
    write_mock=_write_mock,
)
