"""Your own point clouds and meshes in folders: a small Perceiver on their points.

Command:   keras-perceiver train --points DIR, DIR with CLASS/FILE (parts of each class are
           held out for validation and test) or with train/ and test/ of these
Hardware:  see the recipe furniture, which is similar
Time:      see there; 130,000 examples, and at least 10 epochs
Score:     see there
"""

from keras_perceiver.config import Config
from keras_perceiver.data import folder_splits, point_cloud_augmentation
from keras_perceiver.modalities import PointCloud, PointCloudPreprocessor
from keras_perceiver.recipes._small import folder_recipe

_NUM_POINTS = 1024  # `keras_perceiver.recipes._sizes` replaces it

RECIPE = folder_recipe(
    "points",
    Config(folder_splits, augment=Config(point_cloud_augmentation)),
    Config(PointCloudPreprocessor, num_points=_NUM_POINTS),
    Config(PointCloud, num_points=_NUM_POINTS, num_bands=8, max_resolution=16),
    epochs=160,
)
