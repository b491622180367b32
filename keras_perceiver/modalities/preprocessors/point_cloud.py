"""Files of points and meshes."""

import io

import keras
import numpy as np

from keras_perceiver.modalities.preprocessors.arrays import load_array
from keras_perceiver.modalities.preprocessors.base import (
    Preprocessor,
)
from keras_perceiver.modalities.preprocessors.file_rules import FileRule

_IS_SAMPLED = FileRule(
    "Meshes are sampled on their surface in `num_points` points.",
    "num_points=None",
    "Set `num_points`",
)
_IS_FINITE = FileRule("Points must be finite.", "a NaN or infinite number", "Remove it")


@keras.saving.register_keras_serializable(package="keras_perceiver")
class PointCloudPreprocessor(Preprocessor):
    """Reads point clouds: NumPy arrays, text, and meshes sampled on their surface.

    Files: `.npy` of shape `(points, 3 + num_features)`, `.xyz` with one point per line,
    numbers separated by spaces, and with `pip install "keras_perceiver[points]"` `.off`
    and `.ply`. A mesh gives `num_points` random points of its surface, the same ones
    each time; one without faces gives its vertices.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 4.3: zero mean,
        scaled to the unit cube.

    Args:
        num_points: Integer. Of files with more points a random subset is taken, the same
            one each time; those with fewer are padded at the end if there is a mask,
            and an error if not. `None`: files of any length, and no meshes.
        num_features: Integer, numbers that follow the three coordinates of each point.
        use_unit_cube: Boolean. `True`: the points are moved to zero mean and scaled, all
            axes alike, to fill -1..1. `False`: they keep their units.
        use_mask: Boolean, whether a mask goes with the points. Defaults to `True` for
            files of any length, else to `False`.
        seed: Integer, seed of the random points.

    Returns:
        `read` returns the points as a float32 array of shape
        `(points, 3 + num_features)`.

    Raises:
        ValueError: if a number is negative, or if files of any length shall have no
            mask; by `read`, if a file is invalid.

    Example:

    >>> preprocessor = PointCloudPreprocessor(num_points=50)
    >>> suffix, content = preprocessor.random_file(np.random.default_rng(0))
    >>> preprocessor.read_content(content, suffix).shape
    (50, 3)
    """

    input_name = "points"
    suffixes = (".npy", ".off", ".ply", ".xyz")
    file_kind = "a NumPy array of numbers, a text of numbers or a mesh, by its ending"

    def __init__(
        self,
        num_points=None,
        num_features=0,
        use_unit_cube=True,
        use_mask=None,
        seed=0,
    ):
        self._set_length("num_points", num_points, use_mask)
        if num_features < 0:
            raise ValueError(
                "`num_features` must not be negative. Received: "
                f"num_features={num_features}. Set it to 0 for coordinates alone."
            )
        self.num_points = num_points
        self.num_features = num_features
        self.use_unit_cube = use_unit_cube
        self.seed = seed
        self.shape = (num_points, 3 + num_features)

    def decode(self, content, suffix=""):
        if suffix == ".npy":
            points = load_array(content)
        elif suffix == ".xyz":
            rows = [line.split() for line in content.decode().splitlines()]
            points = np.array([row for row in rows if row], "float64")
        else:
            points = self._decode_mesh(content, suffix)
        width = self.shape[1]
        if points.size == 0:
            points = points.reshape(0, width)
        FileRule(
            f"Points must have shape `(points, {width})`: three coordinates and "
            f"{self.num_features} features.",
            "shape {}",
            "Set `num_features`",
        ).check(points.ndim == 2 and points.shape[1] == width, points.shape)
        _IS_FINITE.check(np.isfinite(points).all())
        return points

    def _decode_mesh(self, content, suffix):
        try:
            import trimesh
        except ImportError as error:
            raise ImportError(
                "Meshes are read with trimesh, which is not installed. "
                'Install it with `pip install "keras_perceiver[points]"`.'
            ) from error

        # `process` would drop what is not finite without an error.
        mesh = trimesh.load(
            io.BytesIO(content), file_type=suffix.removeprefix("."), process=False
        )
        vertices = np.asarray(mesh.vertices)
        _IS_FINITE.check(np.isfinite(vertices).all())
        if not len(getattr(mesh, "faces", ())):
            return vertices
        _IS_SAMPLED.check(self.num_points is not None)
        points, _ = trimesh.sample.sample_surface(mesh, self.num_points, seed=self.seed)
        return np.asarray(points)

    def convert(self, array):
        import tensorflow as tf

        with tf.device("CPU"):  # not one small cloud at a time on an accelerator
            points = tf.cast(tf.convert_to_tensor(array), "float64")
            if self.num_points is not None:
                points = self._subset(points)
            if self.use_unit_cube:
                cube = unit_cube(points[:, :3])
                points = tf.concat([cube, points[:, 3:]], axis=1)
            return tf.cast(points, self.dtype)

    def _subset(self, points):
        import tensorflow as tf

        length = tf.shape(points)[0]

        def subset():
            numbers = tf.random.stateless_uniform([length], [self.seed, 0])
            return tf.gather(points, tf.argsort(numbers)[: self.num_points])

        return tf.cond(length > self.num_points, subset, lambda: points)

    def random_file(self, rng, max_length=None):
        length = self.num_points or max_length or 100
        if self.use_mask and rng.integers(2):
            length = int(rng.integers(1, length + 1))
        points = rng.normal(size=(length, self.shape[1])).astype("float32")
        content = io.BytesIO()
        np.save(content, points)
        return ".npy", content.getvalue()

    def get_config(self):
        return {
            **super().get_config(),
            "num_points": self.num_points,
            "num_features": self.num_features,
            "use_unit_cube": self.use_unit_cube,
            "use_mask": self.use_mask,
            "seed": self.seed,
        }


def unit_cube(points):
    """Moves point clouds to zero mean, and scales them to fill -1..1, all axes alike.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 4.3.

    Args:
        points: Float tensor of shape `(..., points, 3)`.

    Returns:
        Tensor of the same shape.
    """
    import tensorflow as tf

    points = points - tf.reduce_mean(points, axis=-2, keepdims=True)
    reach = tf.reduce_max(tf.abs(points), axis=(-2, -1), keepdims=True)
    # All points in one place stay there.
    return tf.math.divide_no_nan(points, reach)
