"""Drawings in 13 classes: a Perceiver on folders of small PNG images.

Command:   make train RECIPE=clipart ARGS="--data DIR", DIR with train/ and test/
Hardware:  2 CPU cores
Time:      not measured yet
Score:     not measured yet
"""

from keras_perceiver.data import ImageFiles, folder_splits, image_changes
from keras_perceiver.modalities import Image
from keras_perceiver.recipes._small import folder_recipe

SHAPE = (32, 32, 3)


def _data(batch_size, seed, folder):
    return folder_splits(
        folder, ImageFiles(SHAPE), batch_size, seed, image_changes(seed)
    )


def modality(use_mask=False):
    """Returns the layer that makes 16 x 16 elements of a drawing."""
    return Image(SHAPE, num_bands=16, patch_size=2, use_mask=use_mask)


RECIPE = folder_recipe("clipart", _data, modality, epochs=60)
