"""Modalities: layers that turn one raw batch into elements with positions."""

import keras
from keras import ops

from keras_perceiver._checks import check_positive
from keras_perceiver.layers import FourierPositionEncoding


@keras.saving.register_keras_serializable(package="keras_perceiver")
class Image(keras.layers.Layer):
    """Turns images into elements: pixels or patches with position features.

    No convolution and no other prior on images: the Perceiver sees a set of elements,
    each the channels of one pixel (or of one patch) and where it stands.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), sections 3.2 and 4.1.

    Args:
        shape: Tuple `(height, width, channels)`, in pixels.
        num_bands: Integer, number of Fourier frequencies per axis. Defaults to 64. Only
            for Fourier features, so not together with `position_encoding`.
        max_resolution: Integer or pair of integers, see `FourierPositionEncoding`.
            Defaults to the number of elements along each axis.
        patch_size: Integer, side of the square patches in pixels. 1 means pixels.
        position_encoding: Layer that is called on a tensor of shape
            `(batch, rows, columns, channels)` and returns position features of shape
            `(batch, rows * columns, features)`, such as `LearnedPositionEncoding`.
            Defaults to `FourierPositionEncoding(num_bands, max_resolution)`.
        use_mask: Boolean. `True` gives a model a second input `"image_mask"`: booleans
            of shape `(batch, rows, columns)`, `False` for elements that are padding.
        name: String, name of the layer.
        **kwargs: Arguments of `keras.layers.Layer`, such as `dtype`.

    Call arguments:
        inputs: Tensor of shape `(batch, height, width, channels)`, best scaled to about
            -1 to 1 or 0 to 1.

    Returns:
        Tensor of shape `(batch, num_inputs, input_dim)`, with `num_inputs` the number
        of elements and `input_dim` the channels of an element and its position features.

    Raises:
        ValueError: if a size is not positive or not a multiple of `patch_size`, if both
            Fourier settings and `position_encoding` are given, or if `inputs` has
            another shape than `shape`.

    Example:

    >>> images = keras.random.normal((2, 32, 48, 3))
    >>> tuple(Image((32, 48, 3), num_bands=6)(images).shape)
    (2, 1536, 29)
    >>> tuple(Image((32, 48, 3), num_bands=6, patch_size=4)(images).shape)
    (2, 96, 74)
    """

    # The name of the model's input, and with "_mask" of its mask.
    input_name = "image"

    def __init__(
        self,
        shape,
        num_bands=None,
        max_resolution=None,
        patch_size=1,
        position_encoding=None,
        use_mask=False,
        name="image_modality",  # not Keras' "image", the name of the model's input
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        shape = tuple(shape)
        if len(shape) != 3:
            raise ValueError(
                "`shape` must be (height, width, channels). Received: "
                f"shape={shape}. Grey images have one channel: (height, width, 1)."
            )
        check_positive(
            height=shape[0], width=shape[1], channels=shape[2], patch_size=patch_size
        )
        if shape[0] % patch_size or shape[1] % patch_size:
            raise ValueError(
                "Height and width of `shape` must be multiples of `patch_size`. "
                f"Received: shape={shape}, patch_size={patch_size}. "
                "Resize the images or choose another patch size."
            )
        if position_encoding is None:
            self.position_encoding = FourierPositionEncoding(
                64 if num_bands is None else num_bands,
                max_resolution,
                dtype=self.dtype_policy,
                name="position_encoding",
            )
        elif num_bands is not None or max_resolution is not None:
            raise ValueError(
                "`num_bands` and `max_resolution` are for Fourier features only. "
                f"Received: num_bands={num_bands}, max_resolution={max_resolution}, "
                f"position_encoding={position_encoding}. "
                "Leave them out, or set them on the position encoding."
            )
        else:
            self.position_encoding = position_encoding
        self._has_own_encoding = position_encoding is not None
        self.shape = shape
        self.num_bands = num_bands
        self.max_resolution = (
            tuple(max_resolution)
            if isinstance(max_resolution, list)
            else max_resolution
        )
        self.patch_size = patch_size
        self.use_mask = use_mask

    @property
    def grid(self):
        """Number of elements along each axis: `(rows, columns)`."""
        return (self.shape[0] // self.patch_size, self.shape[1] // self.patch_size)

    def check_inputs(self, inputs_shape):
        """Raises `ValueError` unless a batch of this shape can be read."""
        # `None` is the unknown rank of a TensorFlow shape.
        is_known = getattr(inputs_shape, "rank", 0) is not None
        received = tuple(inputs_shape) if is_known else None
        if received is None or received[1:] != self.shape:
            raise ValueError(
                f"Images must have shape `(batch, {', '.join(map(str, self.shape))})`. "
                f"Received: shape {received}. "
                "Batch, resize or convert the images, or make the model for this shape: "
                "`Image((height, width, channels))`."
            )

    def build(self, inputs_shape):
        self.check_inputs(inputs_shape)
        self.position_encoding.build((inputs_shape[0], *self.grid, self._element_dim))

    @property
    def _element_dim(self):
        return self.patch_size**2 * self.shape[-1]

    def call(self, inputs):
        self.check_inputs(inputs.shape)
        rows, columns = self.grid
        size, channels = self.patch_size, self.shape[-1]
        if size > 1:
            shape = (-1, rows, size, columns, size, channels)
            inputs = ops.transpose(ops.reshape(inputs, shape), (0, 1, 3, 2, 4, 5))
        elements = ops.reshape(inputs, (-1, rows, columns, self._element_dim))
        positions = self.position_encoding(elements)  # (B, M, P)
        elements = ops.reshape(elements, (-1, rows * columns, self._element_dim))
        return ops.concatenate([elements, positions], axis=-1)  # (B, M, C)

    def get_config(self):
        own = self.position_encoding if self._has_own_encoding else None
        return {
            **super().get_config(),
            "shape": self.shape,
            "num_bands": self.num_bands,
            "max_resolution": self.max_resolution,
            "patch_size": self.patch_size,
            "position_encoding": own and keras.saving.serialize_keras_object(own),
            "use_mask": self.use_mask,
        }

    @classmethod
    def from_config(cls, config):
        encoding = config.get("position_encoding")
        if encoding is not None:
            encoding = keras.saving.deserialize_keras_object(encoding)
        return cls(**{**config, "position_encoding": encoding})
