"""ModelNet40."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from keras_perceiver.data.augmentation import point_scaling
from keras_perceiver.data.builders import MODELNET40_POINTS
from keras_perceiver.data.datasets._published import published_splits
from keras_perceiver.modalities import PointCloudPreprocessor

if TYPE_CHECKING:
    from keras_perceiver._typing import PathLike
    from keras_perceiver.data.splits import Splits


def modelnet40(
    batch_size: int,
    seed: int = 0,
    folder: PathLike | None = None,
    mock: bool = False,
    release: str = "meshes",
    scale: float = 0.01,
    preprocessor: PointCloudPreprocessor | None = None,
    **options: Any,
) -> Splits:
    """Returns ModelNet40: 2,048 points per object in the unit cube, in 40 classes.

    For training, each point is scaled by a random factor (`point_scaling`).

    Source: `ModelNet40.zip` of [Princeton](https://modelnet.cs.princeton.edu), 12,311
    meshes, whose surface is sampled when the data are prepared, or
    `modelnet40_ply_hdf5_2048.zip` of the authors of PointNet, with the points of 12,308
    of them. Both are downloaded by hand.

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

    Returns:
        `Splits`. Points are float32 of shape `(batch, 2048, 3)`, labels int32 of shape
        `(batch,)`. A tenth of the published training data are for validation.

    Raises:
        FileNotFoundError: if the data are not prepared.
        ValueError: as `tfds_splits`.
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
