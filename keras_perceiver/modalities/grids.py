"""Arrays on a grid: images, videos, and others."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_perceiver._checks import as_shape, check_positive
from keras_perceiver.modalities.base import Modality
from keras_perceiver.modalities.patches import group, per_axis
from keras_perceiver.modalities.preprocessors.image import ImagePreprocessor
from keras_perceiver.modalities.preprocessors.video import VideoPreprocessor

PIXEL_FIX = "Pixels of 8 bits become `inputs / 127.5 - 1`."


@keras.saving.register_keras_serializable(package="keras_perceiver")
class Array(Modality):
    """Arrays on a grid as elements: points or patches with position features.

    It is for data without a more specific modality: sensor readings over time, volumes,
    tables. In a model, the name of the input is `"array"`.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 3.2.

    Args:
        shape: Tuple `(*grid, channels)`. An axis of the grid may be `None` for a
            dynamic length, which needs `max_resolution` for Fourier features, and
            `grid` for `LearnedPositionEncoding`.
        patch_size: Integer or tuple of one integer per axis, number of points per patch
            along each axis. 1 means no patches. Lengths must be multiples of it.
        **kwargs: Arguments of `Modality` (`num_bands`, `max_resolution`,
            `position_encoding`, `use_mask`, `projection_dim` and `use_added_positions`)
            and of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape `(batch, *grid, channels)`, preferably scaled to about
            -1 to 1.
        inputs_mask: Boolean tensor of shape `(batch, *grid)`, `False` for padding, which
            is set to zero, or `None`.

    Returns:
        Tensor of shape `(batch, num_inputs, input_dim)`, where `num_inputs` is the
        number of elements, and `input_dim` is the number of channels of an element plus
        that of position features.

    Raises:
        ValueError: if a size is not positive or not a multiple of `patch_size`, if both
            Fourier settings and `position_encoding` are given, or if the shape of
            `inputs` is not `shape`.

    Example:

    >>> volumes = keras.random.normal((2, 8, 8, 4, 1))
    >>> tuple(Array((8, 8, 4, 1), num_bands=6, patch_size=(2, 2, 1))(volumes).shape)
    (2, 64, 43)
    """

    input_name = "array"
    _noun = "Arrays"
    shape_fix = "Change the arrays, or create the modality for this shape."
    _axes: tuple[str, ...] | None = None

    def __init__(
        self,
        shape: tuple[int | None, ...],
        patch_size: int | tuple[int, ...] = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        shape = as_shape(shape)
        axes = self._axes or tuple(f"shape[{i}]" for i in range(len(shape) - 1))
        if len(shape) != len(axes) + 1 or not axes:
            raise ValueError(
                f"`shape` must be ({', '.join(self._axes or ('*grid',))}, channels). "
                f"Received: shape={shape}. A single channel needs an axis of length 1."
            )
        self._patch_sizes = per_axis("patch_size", patch_size, len(axes))
        for size in self._patch_sizes:
            check_positive(patch_size=size)
        for axis, length, size in zip(axes, shape, self._patch_sizes, strict=False):
            if length is None:
                continue
            check_positive(**{axis: length})
            if length % size:
                raise ValueError(
                    "The lengths in `shape` must be multiples of `patch_size`. Received: "
                    f"shape={shape}, patch_size={patch_size}. "
                    "Resize the inputs or choose another patch size."
                )
        check_positive(channels=shape[-1])
        self.shape = shape
        self.patch_size = (
            self._patch_sizes if isinstance(patch_size, (tuple, list)) else patch_size
        )

    @property
    def input_shape(self):
        return self.shape

    @property
    def example_shape(self):
        lengths = zip(self.shape, self._patch_sizes, strict=False)
        # Two patches where any number is valid.
        return (*(2 * p if n is None else n for n, p in lengths), self.shape[-1])

    @property
    def dynamic_lengths(self):
        axes = super().dynamic_lengths
        return {axis: (self._patch_sizes[axis], None) for axis in axes}

    @property
    def element_dim(self):
        return self.shape[-1] * math.prod(self._patch_sizes)

    @property
    def shape_rule(self):
        shape = ", ".join(str(n or "any") for n in self.shape)
        multiples = (
            f", in multiples of the patch size {self.patch_size}"
            if None in self.shape and self.patch_size != 1
            else ""
        )
        return f"{self._noun} must have shape `(batch, {shape})`{multiples}."

    def is_valid_shape(self, sizes):
        return super().is_valid_shape(sizes) and not any(
            isinstance(size, int) and size % patch
            for size, patch in zip(sizes, self._patch_sizes, strict=False)
        )

    def grid_of(self, lengths):
        return tuple(
            None if length is None else length // size
            for length, size in zip(lengths, self._patch_sizes, strict=True)
        )

    def elements(self, inputs):
        return group(inputs, self._patch_sizes)

    def elements_mask(self, inputs_mask):
        """Returns which elements have a position that is not padding, `(B, M)`."""
        mask = ops.expand_dims(ops.cast(inputs_mask, "bool"), -1)
        mask = group(mask, self._patch_sizes)
        return ops.reshape(ops.any(mask, axis=-1), (ops.shape(mask)[0], -1))


@keras.saving.register_keras_serializable(package="keras_perceiver")
class Image(Array):
    """Images as elements: pixels or patches with position features.

    There is no convolution and no other prior on images. The inputs of the Perceiver are
    a set of elements, each the channels of a pixel or a patch, and its position.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), sections 3.2 and 4.1.

    Args:
        shape: Tuple `(height, width, channels)`, in pixels. Height and width may be
            `None` for dynamic sizes, which need `max_resolution` for Fourier features,
            and `grid` for `LearnedPositionEncoding`.
        patch_size: Integer or pair of integers, height and width of the patches in
            pixels. 1 means pixels. Height and width must be multiples of it.
        **kwargs: Arguments of `Modality` (`num_bands`, `max_resolution`,
            `position_encoding`, `use_mask`, `projection_dim` and `use_added_positions`)
            and of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape `(batch, height, width, channels)`, preferably scaled to
            about -1 to 1 or 0 to 1.
        inputs_mask: Boolean tensor of shape `(batch, height, width)`, `False` for
            padding, which is set to zero, or `None`.

    Returns:
        Tensor of shape `(batch, num_inputs, input_dim)`, where `num_inputs` is the
        number of elements, and `input_dim` is the number of channels of an element plus
        that of position features.

    Raises:
        ValueError: if a size is not positive or not a multiple of `patch_size`, if both
            Fourier settings and `position_encoding` are given, or if the shape of
            `inputs` is not `shape`.

    Example:

    >>> images = keras.random.normal((2, 32, 48, 3))
    >>> tuple(Image((32, 48, 3), num_bands=6)(images).shape)
    (2, 1536, 29)
    >>> tuple(Image((32, 48, 3), num_bands=6, patch_size=4)(images).shape)
    (2, 96, 74)
    """

    input_name = "image"
    scale_fix = PIXEL_FIX
    _noun = "Images"
    shape_fix = (
        "Batch, resize or convert the images, or create the model for this shape: "
        "`Image((height, width, channels))`."
    )
    _axes = ("height", "width")

    def file_preprocessor(self):
        return None if None in self.shape else ImagePreprocessor(self.shape)


@keras.saving.register_keras_serializable(package="keras_perceiver")
class Video(Array):
    """Videos as elements: patches over space and time with position features.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 4.2: 32 frames
        of 224 x 224 pixels in patches of 2 x 8 x 8 become 12,544 elements.

    Args:
        shape: Tuple `(frames, height, width, channels)`, in frames and pixels. All but
            the channels may be `None` for dynamic sizes, which need `max_resolution`
            for Fourier features, and `grid` for `LearnedPositionEncoding`.
        patch_size: Integer or triple of integers, frames, height and width of the
            patches. The lengths must be multiples of it.
        **kwargs: Arguments of `Modality` (`num_bands`, `max_resolution`,
            `position_encoding`, `use_mask`, `projection_dim` and `use_added_positions`)
            and of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape `(batch, frames, height, width, channels)`, preferably
            scaled to about -1 to 1 or 0 to 1.
        inputs_mask: Boolean tensor of shape `(batch, frames, height, width)`, `False`
            for padding, which is set to zero, or `None`.

    Returns:
        Tensor of shape `(batch, num_inputs, input_dim)`, where `num_inputs` is the
        number of elements, and `input_dim` is the number of channels of an element plus
        that of position features.

    Raises:
        ValueError: if a size is not positive or not a multiple of `patch_size`, if both
            Fourier settings and `position_encoding` are given, or if the shape of
            `inputs` is not `shape`.

    Example:

    >>> videos = keras.random.normal((2, 4, 32, 48, 3))
    >>> tuple(Video((4, 32, 48, 3), num_bands=6)(videos).shape)
    (2, 48, 423)
    """

    input_name = "video"
    scale_fix = PIXEL_FIX
    _noun = "Videos"
    shape_fix = (
        "Batch, crop or resize the videos, or create the model for this shape: "
        "`Video((frames, height, width, channels))`."
    )
    _axes = ("frames", "height", "width")

    def __init__(
        self,
        shape: tuple[int | None, ...],
        patch_size: int | tuple[int, ...] = (2, 8, 8),
        **kwargs: Any,
    ) -> None:
        super().__init__(shape, patch_size, **kwargs)

    def file_preprocessor(self):
        return None if None in self.shape else VideoPreprocessor(self.shape)
