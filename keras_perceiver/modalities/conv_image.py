"""Images whose elements are made by a convolution."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_perceiver._checks import as_shape, check_positive
from keras_perceiver.modalities.base import Modality
from keras_perceiver.modalities.grids import PIXEL_FIX
from keras_perceiver.modalities.preprocessors.image import ImagePreprocessor

_KERNEL_SIZE, _POOL_SIZE, _STRIDE = 7, 3, 2


@keras.saving.register_keras_serializable(package="keras_perceiver")
class ConvImage(Modality):
    """Turns images into elements by a convolution and pooling, a quarter of their size.

    A convolution of 7 x 7 with stride 2, batch normalization, ReLU and maximum pooling of
    3 x 3 with stride 2: 224 x 224 pixels become 56 x 56 elements. It is the preprocessing
    of the conv models of Perceiver and Perceiver IO, which know that images are
    two-dimensional.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2107.14795), section 4.5 and
        appendix H; padding of DeepMind's or of Hugging Face's code.

    Args:
        shape: Tuple `(height, width, channels)`, in pixels. Height and width may be
            `None`: batches then have any size. Fourier features need `max_resolution` for
            that, `LearnedPositionEncoding` its `grid`.
        filters: Integer, number of filters, the width of an element.
        use_same_padding: Boolean. `True`: both windows are padded as TensorFlow and JAX
            do, so that there is an element for every 4 x 4 pixels. `False`: the
            convolution is padded by 3 pixels on each side and the pooling is not, as in
            Hugging Face's code: 224 x 224 pixels become 55 x 55 elements.
        **kwargs: Arguments of `Modality`, which are `num_bands`, `max_resolution`,
            `position_encoding`, `projection_dim` and `use_added_positions`, and of
            `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape `(batch, height, width, channels)`, best scaled to about
            -1 to 1.
        training: Boolean, whether batch statistics are used and moving ones updated.

    Returns:
        Tensor of shape `(batch, num_inputs, input_dim)`, with `num_inputs` the number of
        elements and `input_dim` the filters and the features of a position.

    Raises:
        ValueError: if a size is not positive, if images are too small for the windows, if
            there is to be a mask, if Fourier settings and `position_encoding` are both
            given, or if `inputs` has another shape than `shape`.

    Example:

    >>> images = keras.random.normal((2, 32, 48, 3))
    >>> tuple(ConvImage((32, 48, 3), filters=16, num_bands=6)(images).shape)
    (2, 96, 42)
    """

    input_name = "image"
    scale_fix = PIXEL_FIX
    shape_fix = (
        "Batch, resize or convert the images, or make the modality for this shape: "
        "`ConvImage((height, width, channels))`."
    )

    def __init__(
        self,
        shape: tuple[int | None, int | None, int],
        filters: int = 64,
        use_same_padding: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if self.use_mask:
            raise ValueError(
                "A convolution reads padding as if it were pixels. Received: "
                "use_mask=True. Resize the images, or use `Image`."
            )
        sizes = as_shape(shape)
        if len(sizes) != 3:
            raise ValueError(
                "`shape` must be (height, width, channels). Received: "
                f"shape={sizes}. One channel has an axis too, of length 1."
            )
        for name, size in zip(("height", "width", "channels"), sizes, strict=True):
            if size is not None or name == "channels":
                check_positive(**{name: size})
        check_positive(filters=filters)
        self.shape = sizes
        self.filters = filters
        self.use_same_padding = use_same_padding
        if any(n is not None and n < 1 for n in self.grid):
            raise ValueError(
                "The images must be larger than the windows of the convolution. "
                f"Received: shape={sizes}. Use larger images, or `Image`."
            )

    @property
    def input_shape(self):
        return self.shape

    @property
    def example_shape(self):
        return tuple(32 if n is None else n for n in self.shape)

    @property
    def element_dim(self):
        return self.filters

    def grid_of(self, lengths):
        return tuple(None if n is None else self._num_windows(n) for n in lengths)

    def _num_windows(self, length):
        if self.use_same_padding:
            return -(-length // _STRIDE**2)
        length = (length - 1) // _STRIDE + 1
        return (length - _POOL_SIZE) // _STRIDE + 1

    def is_valid_shape(self, sizes):
        return super().is_valid_shape(sizes) and not any(
            isinstance(size, int) and self._num_windows(size) < 1 for size in sizes[:2]
        )

    def build(self, inputs_shape):
        padding = "same" if self.use_same_padding else "valid"
        self.convolution = keras.layers.Conv2D(
            self.filters,
            _KERNEL_SIZE,
            _STRIDE,
            padding,
            data_format="channels_last",
            use_bias=False,
            kernel_initializer="lecun_normal",
            dtype=self.dtype_policy,
            name="convolution",
        )
        self.batch_norm = keras.layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, dtype=self.dtype_policy, name="batch_norm"
        )
        self.convolution.build((None, None, None, self.shape[-1]))
        self.batch_norm.build((None, None, None, self.filters))
        super().build(inputs_shape)

    def elements(self, inputs):
        return self._elements(inputs, training=False)

    def _elements(self, inputs, training):
        padding = "same"
        if not self.use_same_padding:
            border, padding = (_KERNEL_SIZE // 2,) * 2, "valid"
            inputs = ops.pad(inputs, ((0, 0), border, border, (0, 0)))
        outputs = self.convolution(inputs)
        outputs = ops.relu(self.batch_norm(outputs, training=training))
        elements = ops.max_pool(
            outputs, _POOL_SIZE, _STRIDE, padding, data_format="channels_last"
        )
        return self.augment(elements) if training else elements

    def file_preprocessor(self):
        return None if None in self.shape else ImagePreprocessor(self.shape)
