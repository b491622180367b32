"""ModelNet40."""

import tensorflow as tf

from keras_perceiver.data.augmentation import point_scaling
from keras_perceiver.data.builders import MODELNET40_POINTS
from keras_perceiver.data.datasets._published import published_splits
from keras_perceiver.modalities import PointCloudPreprocessor


def modelnet40(
    batch_size,
    seed=0,
    folder=None,
    mock=False,
    release="meshes",
    scale=0.01,
    preprocessor=None,
    **options,
):
    """Returns ModelNet40: 2,048 points per object in the unit cube, in 40 classes.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 4.3.

    Args:
        batch_size: Integer, examples per batch.
        seed: Integer, seed of the shuffling and of the augmentation.
        folder: Path of the prepared data, or of the archive `ModelNet40.zip` or
            `modelnet40_ply_hdf5_2048.zip`, where they are prepared.
        mock: Boolean, whether to use random examples.
        release: String, `"meshes"` or `"points_2048"`.
        scale: Float, see `point_scaling`.
        preprocessor: `PointCloudPreprocessor` of the points. Defaults to one that
            scales to the unit cube.
        **options: Arguments of `tfds_splits`.
    """
    preprocessor = preprocessor or PointCloudPreprocessor(MODELNET40_POINTS)

    def prepare(example):
        points = preprocessor.convert(example["points"])
        return points, tf.cast(example["label"], "int32")

    def random_example(rng):
        points = rng.normal(size=(MODELNET40_POINTS, 3)).astype("float32")
        return {"points": points, "label": rng.integers(40)}

    return published_splits(
        f"modelnet40/{release}",
        batch_size,
        seed,
        folder,
        mock and random_example,
        options,
        preprocessor=preprocessor,
        prepare=prepare,
        augment=point_scaling(scale),
    )
