"""Preprocessor of image files."""

from __future__ import annotations

import io
from collections.abc import Sequence

import keras
import numpy as np

from keras_perceiver._checks import check_positive
from keras_perceiver.modalities.preprocessors.base import Preprocessor
from keras_perceiver.modalities.preprocessors.file_rules import FileRule, first_error
from keras_perceiver.modalities.preprocessors.orientation import (
    orientation_in_graph,
    upright_in_graph,
)
from keras_perceiver.modalities.preprocessors.pictures import PNG_DEPTH, read_image
from keras_perceiver.modalities.preprocessors.pixels import (
    PIXEL_RANGE,
    checked_range,
    checked_shape,
    scale_pixels,
)

_PNG, _JPEG, _BMP, _GIF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"GIF8"
_HEADER_BYTES = 32
# Offset of the bits per pixel in a BMP.
_BMP_DEPTH = 28
_CMYK_CHANNELS = 4
_INTERPOLATIONS = ("bilinear", "bicubic")

_IS_IMAGE = FileRule(
    "Images must be PNG, JPEG, BMP or GIF if TensorFlow decodes them.",
    "other content",
    "Convert the file, and send its bytes undamaged",
)
_IS_8_BIT = FileRule(
    "Images must have 8 bits per channel if TensorFlow decodes them.",
    "a PNG of 16 bits",
    "Convert the file",
)
_IS_NO_CMYK = FileRule(
    "Images must be grayscale, RGB or palette images if TensorFlow decodes them.",
    "mode CMYK",
    "Convert the file to RGB",
)
_IS_24_BIT = FileRule(
    "BMP images must have 24 bits per pixel if TensorFlow decodes them.",
    "{} bits",
    "Convert the file to PNG",
)


@keras.saving.register_keras_serializable(package="keras_perceiver")
class ImagePreprocessor(Preprocessor):
    """Reads images upright, resizes them, and scales their values.

    It reads AVIF, BMP, GIF, JPEG, JPEG 2000, PBM, PGM, PNG, PPM, TIFF with one page and
    WebP, and the first frame of animations. PNG and grayscale images may have 16 bits per
    channel, which are all kept. Colors of 16 bits in other formats are an error, since
    Pillow reduces them to 8 bits. CMYK images become RGB without their color profile.
    In a graph, such as that of a served model, only PNG, JPEG and GIF with 8 bits per
    channel and without CMYK, and BMP with 24 bits per pixel are decoded.
    Images of another size are resized with antialiasing. The orientation in the Exif
    data of a file is applied.

    Reference:
        [Pillow](https://pillow.readthedocs.io) decodes images on the host, and
        TensorFlow in a graph.

    Args:
        shape: Tuple `(height, width, channels)`, in pixels. An image with another number
            of channels is an error, since a grayscale image among color images is
            usually a mistake.
        value_range: Pair of floats, the values that 0 and 255 are scaled to.
        crop_to_aspect_ratio: Boolean. `True`: an image with another aspect ratio is
            center-cropped before resizing. `False`: resizing distorts it.
        crop_fraction: Float in (0, 1], fraction of height and width that a center crop
            keeps.
        interpolation: String, `"bilinear"` or `"bicubic"`.
        mean: Sequence of floats, one per channel, subtracted after scaling to the value
            range, or `None`.
        standard_deviation: Sequence of floats, one per channel, by which the result is
            divided, or `None`.
        max_pixels: Integer, maximum number of pixels. It is checked before an image is
            decoded. Defaults to the number above which Pillow warns. Above twice that
            number, `PIL.Image.MAX_IMAGE_PIXELS` must be increased as well.

    Returns:
        `read` returns the image as a float32 array of shape `shape`.

    Raises:
        ValueError: if `shape` is not three positive integers, if another argument is
            out of range, or, in `read`, if a file is invalid.

    Example:

    >>> suffix, content = ImagePreprocessor((8, 8, 3)).random_file(
    ...     np.random.default_rng(0)
    ... )
    >>> pixels = ImagePreprocessor((4, 4, 3), value_range=(0, 1)).read_content(content)
    >>> pixels.shape, bool(0 <= pixels.min() <= pixels.max() <= 1)
    ((4, 4, 3), True)
    """

    input_name = "image"
    suffixes = (
        *(".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
        *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
    )
    file_kind = "an image"
    value_range: tuple[float, float]
    graph_file_kind = "a PNG, JPEG or GIF of 8 bits per channel, or a BMP of 24 bits"

    def __init__(
        self,
        shape: tuple[int, int, int],
        value_range: tuple[float, float] = PIXEL_RANGE,
        crop_to_aspect_ratio: bool = False,
        crop_fraction: float = 1.0,
        interpolation: str = "bilinear",
        mean: Sequence[float] | None = None,
        standard_deviation: Sequence[float] | None = None,
        max_pixels: int = 89_478_485,
    ) -> None:
        check_positive(max_pixels=max_pixels)
        self.shape = checked_shape(shape, ("height", "width", "channels"))
        self.value_range = checked_range(value_range)
        if not 0 < crop_fraction <= 1:
            raise ValueError(
                "`crop_fraction` must be in (0, 1]. Received: "
                f"crop_fraction={crop_fraction}. Set it to 1.0 for whole images."
            )
        if interpolation not in _INTERPOLATIONS:
            raise ValueError(
                f"`interpolation` must be one of {_INTERPOLATIONS}. Received: "
                f"interpolation={interpolation!r}. Choose one of them."
            )
        self.crop_to_aspect_ratio = crop_to_aspect_ratio
        self.crop_fraction = crop_fraction
        self.interpolation = interpolation
        self.mean = self._per_channel("mean", mean)
        self.standard_deviation = self._per_channel(
            "standard_deviation", standard_deviation
        )
        if min(self.standard_deviation or (1,)) <= 0:
            raise ValueError(
                "`standard_deviation` must be positive. Received: "
                f"standard_deviation={standard_deviation}. Correct it."
            )
        self.max_pixels = max_pixels

    def _per_channel(self, name, numbers):
        """Returns one number per channel as a tuple, or `None`."""
        if numbers is None:
            return None
        numbers = tuple(map(float, numbers))
        if len(numbers) != self.shape[-1]:
            raise ValueError(
                f"`{name}` must have one number per channel. Received: "
                f"{name}={numbers} for shape={self.shape}. Give as many, or `None`."
            )
        return numbers

    @property
    def _channels_rule(self):
        number = self.shape[-1]
        return FileRule(
            f"Images must have {number} channel{'s' * (number > 1)}, as in `shape`.",
            "channels={}",
            "Convert the file",
        )

    @property
    def _size_rule(self):
        return FileRule(
            f"Images must have at most `max_pixels={self.max_pixels}` pixels.",
            "{} x {}",
            "Reduce the image, or set `max_pixels`",
        )

    def decode(self, content, suffix=""):
        pixels = read_image(content, self._check_size)  # (H, W, C)
        self._channels_rule.check(pixels.shape[-1] == self.shape[-1], pixels.shape[-1])
        return pixels

    def _check_size(self, height, width):
        self._size_rule.check(height * width <= self.max_pixels, height, width)

    def decode_in_graph(self, content):
        import tensorflow as tf

        header = _header(content)
        depth = tf.cast(header[_BMP_DEPTH], "int32")
        is_known = [_begins(header, magic) for magic in (_PNG, _JPEG, _BMP, _GIF)]
        is_png, is_jpeg, is_bmp, _ = is_known
        is_image = tf.reduce_any(is_known)
        size = tf.cond(
            is_image, lambda: _size(content, header), lambda: tf.zeros((3,), "int64")
        )  # height, width, and the channels of a JPEG
        error = first_error(
            _IS_IMAGE.error(is_image),
            _IS_8_BIT.error(~is_png | (header[PNG_DEPTH] != 16)),
            _IS_24_BIT.error(~is_bmp | (depth == 24), depth),
            self._size_rule.error(
                size[0] * size[1] <= self.max_pixels, size[0], size[1]
            ),
            _IS_NO_CMYK.error(tf.not_equal(size[2], _CMYK_CHANNELS)),
        )

        def pixels():
            # This method gives the same pixels as Pillow's JPEG decoder.
            image = tf.cond(
                is_jpeg,
                lambda: tf.io.decode_jpeg(content, dct_method="INTEGER_ACCURATE"),
                lambda: tf.io.decode_image(content, expand_animations=False),
            )
            image = tf.ensure_shape(image, (None, None, None))
            return upright_in_graph(
                image, orientation_in_graph(content, is_jpeg, is_png)
            )

        image = tf.cond(
            tf.equal(error, ""), pixels, lambda: tf.zeros(self.shape, "uint8")
        )
        num_channels = tf.shape(image)[-1]
        has_channels = tf.equal(num_channels, self.shape[-1])
        return image, first_error(
            error, self._channels_rule.error(has_channels, num_channels)
        )

    def convert(self, array):
        import tensorflow as tf

        height, width, channels = self.shape
        with tf.device("CPU"):  # single images are too small for an accelerator
            image = tf.convert_to_tensor(array)
            image.set_shape((None, None, channels))
            if self.crop_to_aspect_ratio or self.crop_fraction < 1:
                image = self._crop(image)
            is_resized = tf.reduce_any(tf.shape(image)[:2] != [height, width])
            # Resizing is expensive, so it is skipped if possible.
            image = tf.cond(
                is_resized,
                lambda: self._resize(image),
                lambda: tf.cast(image, "float32"),
            )
            image = tf.ensure_shape(image, self.shape)
            return self.scale(image)

    def scale(self, pixels):
        """Scales float pixels from 0..255 to the value range, and normalizes them."""
        pixels = scale_pixels(pixels, self.value_range)
        if self.mean is not None:
            pixels = pixels - np.asarray(self.mean, "float32")
        if self.standard_deviation is not None:
            pixels = pixels / np.asarray(self.standard_deviation, "float32")
        return pixels

    def _crop(self, image):
        import tensorflow as tf

        size = tf.shape(image)[:2]
        kept = size
        if self.crop_to_aspect_ratio:
            height, width, _ = self.shape
            rows, columns = tf.unstack(tf.cast(size, "float64"))
            others = tf.round([columns * height / width, rows * width / height])
            kept = tf.minimum(size, tf.cast(others, "int32"))
        if self.crop_fraction < 1:
            wide = tf.cast(kept, "float64") * self.crop_fraction
            kept = tf.cast(wide + 1e-6, "int32")  # rounds down
        kept = tf.maximum(kept, 1)
        # As in DeepMind's training code of the Perceiver.
        top, left = tf.unstack((size - kept + 1) // 2)
        return image[top : top + kept[0], left : left + kept[1]]

    def _resize(self, image):
        import tensorflow as tf

        size, interpolation = self.shape[:2], self.interpolation
        image = tf.image.resize(image, size, interpolation, antialias=True)
        # Bicubic filters overshoot the range, and so do rounded weights.
        return tf.clip_by_value(image, 0.0, 255.0)

    def random_file(self, rng, max_length=None):
        from PIL import Image

        height, width, channels = self.shape
        if rng.integers(3):  # otherwise of the right size
            height += int(rng.integers(1, height + 1))
            width += int(rng.integers(width + 1))
        # Blocks of one color, so that files are small.
        blocks = rng.integers(0, 256, (-(-height // 8), -(-width // 8), channels))
        pixels = blocks.astype("uint8").repeat(8, 0).repeat(8, 1)[:height, :width]
        is_jpeg = channels in (1, 3) and rng.integers(2)
        file = io.BytesIO()
        image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
        image.save(file, "JPEG" if is_jpeg else "PNG")
        return ".jpg" if is_jpeg else ".png", file.getvalue()


def _header(content):
    """Returns the first bytes of a file as numbers, padded with zeros."""
    import tensorflow as tf

    start = tf.strings.substr(content, 0, _HEADER_BYTES)
    start = tf.strings.join([start, tf.constant(bytes(_HEADER_BYTES))])
    return tf.io.decode_raw(tf.strings.substr(start, 0, _HEADER_BYTES), tf.uint8)


def _begins(header, magic):
    import tensorflow as tf

    magic = np.frombuffer(magic, "uint8")
    return tf.reduce_all(header[: len(magic)] == magic)


def _size(content, header):
    """Returns the height and width of an image from its header, and its channels.

    The number of channels is 0 for images other than JPEG.
    """
    import tensorflow as tf

    numbers = tf.cast(header, "int64")

    def at(place, num_bytes, is_big_endian=False):
        value = numbers[place : place + num_bytes]
        value = value[::-1] if is_big_endian else value
        return tf.reduce_sum(value * [1 << 8 * i for i in range(num_bytes)])

    def bmp():
        height = at(22, 4)
        # The height is negative if rows go from top to bottom.
        height = tf.where(height >= 1 << 31, (1 << 32) - height, height)
        return tf.stack([height, at(18, 4), 0])

    return tf.case(
        [
            (
                _begins(header, _JPEG),
                lambda: tf.io.extract_jpeg_shape(content, tf.int64),
            ),
            (
                _begins(header, _PNG),
                lambda: tf.stack([at(20, 4, True), at(16, 4, True), 0]),
            ),
            (_begins(header, _BMP), bmp),
        ],
        default=lambda: tf.stack([at(8, 2), at(6, 2), 0]),  # GIF
    )
