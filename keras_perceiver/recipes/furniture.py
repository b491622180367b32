"""Furniture in 13 classes: a Perceiver on folders of small point clouds.

Command:   make train RECIPE=furniture ARGS="--data DIR", DIR with train/ and test/
Hardware:  2 CPU cores
Time:      not measured yet
Score:     not measured yet
"""

from keras_perceiver.data import PointFiles, folder_splits, point_changes
from keras_perceiver.modalities import PointCloud
from keras_perceiver.recipes._small import folder_recipe

_NUM_POINTS = 1024


def _data(batch_size, seed, folder):
    files = PointFiles(_NUM_POINTS)
    return folder_splits(folder, files, batch_size, seed, point_changes())


RECIPE = folder_recipe(
    "furniture",
    _data,
    lambda: PointCloud(_NUM_POINTS, num_bands=8, max_resolution=16),
    epochs=200,
)
