"""Your own images in folders: a small Perceiver with sizes chosen from the files.

Command:   keras-perceiver train --images DIR, DIR with CLASS/FILE (parts of each class are
           held out for validation and test) or with train/ and test/ of these
Hardware:  see the recipe clipart, which is similar
Time:      see there; 130,000 examples, and at least 10 epochs
Score:     see there
"""

from keras_perceiver.config import Config
from keras_perceiver.data import folder_splits, image_augmentation
from keras_perceiver.modalities import Image, ImagePreprocessor
from keras_perceiver.recipes._small import folder_recipe

# `keras_perceiver.recipes._sizes` replaces this.
_SHAPE = (32, 32, 3)

RECIPE = folder_recipe(
    "images",
    Config(
        folder_splits,
        augment=Config(
            image_augmentation, rotation=0.02, zoom=0.1, contrast=0.1, noise=0.02
        ),
    ),
    Config(ImagePreprocessor, shape=_SHAPE),
    Config(Image, shape=_SHAPE, num_bands=8, patch_size=2),
    epochs=60,
    dropout=0.1,
    element_dropout=0.1,
)
