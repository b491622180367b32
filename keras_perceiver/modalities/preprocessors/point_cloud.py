"""Preprocessor of files with point clouds or meshes."""

from __future__ import annotations

import io

import keras
import numpy as np

from keras_perceiver._checks import check_positive
from keras_perceiver._typing import Tensor
from keras_perceiver.modalities.preprocessors.arrays import load_array
from keras_perceiver.modalities.preprocessors.base import Preprocessor
from keras_perceiver.modalities.preprocessors.file_rules import FileRule
from keras_perceiver.modalities.preprocessors.meshes import (
    read_off,
    read_ply,
    sample_surface,
)

_IS_SAMPLED = FileRule(
    "Meshes need `num_points`, the number of points to sample.",
    "num_points=None",
    "Set `num_points`",
)
_IS_FINITE = FileRule("Points must be finite.", "a NaN or infinite number", "Remove it")
_HAS_NO_FEATURES = FileRule(
    "Points sampled on a mesh have no features.",
    "num_features={}",
    "Set `num_features=0`, or remove the faces",
)

_IS_NUMBERS = FileRule(
    "Lines of an XYZ file must be numbers, separated by spaces.",
    "{} in line {}",
    "Correct the line",
)
_IS_EQUALLY_LONG = FileRule(
    "All lines of an XYZ file must have equally many numbers.",
    "{} in line {}, after {} in the first one",
    "Correct the line",
)


@keras.saving.register_keras_serializable(package="keras_perceiver")
class PointCloudPreprocessor(Preprocessor):
    """Reads point clouds from NumPy arrays, text and meshes, which are sampled.

    It reads `.npy` of shape `(points, 3 + num_features)`, `.xyz` with one point per line
    and numbers separated by spaces, `.off` and `.ply`. A mesh is sampled at `num_points`
    random points of its surface, the same ones each time, with faces triangulated as
    fans. Without faces, its vertices are read. The features are the other `num_features`
    properties of the vertices of a `.ply`, in the order of the file. With
    `num_features=0` they are ignored.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 4.3: zero mean,
        scaled to the unit cube.

    Args:
        num_points: Integer, number of points. Files with more points are subsampled at
            random, the same way each time. Those with fewer are padded at the end if
            there is a mask, and an error otherwise. `None` allows files of any length,
            but no meshes.
        num_features: Integer, number of values after the three coordinates of each point.
        use_unit_cube: Boolean. `True`: the points are centered and scaled, equally along
            all axes, to fill -1..1. `False`: they keep their units.
        use_mask: Boolean, whether points have a mask. Defaults to `True` for files of any
            length, and to `False` otherwise.
        seed: Integer, seed of the random points.
        max_points: Integer, maximum number of points, or of vertices or faces of a mesh.
            It is checked before a file is decoded.

    Returns:
        `read` returns the points as a float32 array of shape
        `(points, 3 + num_features)`.

    Raises:
        ValueError: if a number is negative, if `use_mask` is `False` for files of any
            length, or, in `read`, if a file is invalid.

    Example:

    >>> preprocessor = PointCloudPreprocessor(num_points=50)
    >>> suffix, content = preprocessor.random_file(np.random.default_rng(0))
    >>> preprocessor.read_content(content, suffix).shape
    (50, 3)
    """

    input_name = "points"
    suffixes = (".npy", ".off", ".ply", ".xyz")
    file_kind = (
        "a NumPy array, a text file of numbers or a mesh, according to its extension"
    )

    def __init__(
        self,
        num_points: int | None = None,
        num_features: int = 0,
        use_unit_cube: bool = True,
        use_mask: bool | None = None,
        seed: int = 0,
        max_points: int = 50_000_000,
    ) -> None:
        check_positive(max_points=max_points)
        self._set_length("num_points", num_points, use_mask)
        if num_features < 0:
            raise ValueError(
                "`num_features` must not be negative. Received: "
                f"num_features={num_features}. Set it to 0 for coordinates only."
            )
        self.num_points = num_points
        self.num_features = num_features
        self.use_unit_cube = use_unit_cube
        self.seed = seed
        self.max_points = max_points
        self.shape = (num_points, 3 + num_features)

    def decode(self, content, suffix=""):
        if suffix == ".npy":
            points = load_array(content, self._check_array)
        elif suffix == ".xyz":
            self._check_size(content.count(b"\n"))
            points = self._decode_text(content.decode("utf-8-sig"))
        else:
            points = self._decode_mesh(content, suffix)
        self._check_shape(points.shape)
        _IS_FINITE.check(np.isfinite(points).all())
        return points

    def _check_array(self, shape, dtype):
        self._check_shape(shape)
        self._check_size(shape[0])

    def _check_size(self, num_points):
        FileRule(
            f"A file must have at most `max_points={self.max_points}` points.",
            "{}",
            "Reduce it, or set `max_points`",
        ).check(num_points <= self.max_points, num_points)

    def _check_shape(self, shape):
        width = self.shape[1]
        fix = "Convert the file"
        if len(shape) == 2 and shape[1] >= 3:
            fix = f"Set `num_features={shape[1] - 3}`"
        if len(shape) == 2 and shape[0] == width:
            fix = "Transpose the array"
        FileRule(
            f"Points must have shape `(points, {width})`: three coordinates"
            f"{f' and {self.num_features} features' if self.num_features else ''}.",
            "shape {}",
            fix,
        ).check(len(shape) == 2 and shape[1] == width, shape)

    def _decode_text(self, text):
        lines = [line.partition("#")[0] for line in text.splitlines()]
        lines = [line for line in lines if line.strip()]
        if not lines:
            return np.zeros((0, self.shape[1]))
        try:
            return np.loadtxt(lines, "float64", comments=None, ndmin=2)
        except ValueError:
            _raise_for_line(text)
            raise

    def _decode_mesh(self, content, suffix):
        read = read_off if suffix == ".off" else read_ply
        mesh = read(content, self._check_size)
        _IS_FINITE.check(np.isfinite(mesh.vertices[:, :3]).all())
        if not len(mesh.triangles):
            return mesh.vertices if self.num_features else mesh.vertices[:, :3]
        _IS_SAMPLED.check(self.num_points is not None)
        _HAS_NO_FEATURES.check(self.num_features == 0, self.num_features)
        return sample_surface(mesh, self.num_points, self.seed)

    def convert(self, array):
        import tensorflow as tf

        with tf.device("CPU"):  # single clouds are too small for an accelerator
            points = tf.cast(tf.convert_to_tensor(array), "float64")
            if self.num_points is not None:
                points = self._subset(points)
            if self.use_unit_cube:
                cube = scale_to_unit_cube(points[:, :3])
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


def _raise_for_line(text):
    """Raises an error for the first line that is invalid."""
    width = None
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        for word in words:
            try:
                float(word)
            except ValueError:
                _IS_NUMBERS.check(False, repr(word[:40]), number)
        width = width or len(words)
        _IS_EQUALLY_LONG.check(len(words) in (0, width), len(words), number, width)


def scale_to_unit_cube(points: Tensor) -> Tensor:
    """Centers point clouds and scales them equally along all axes to fill -1..1.

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
    # A cloud whose points coincide is not scaled.
    return tf.math.divide_no_nan(points, reach)
