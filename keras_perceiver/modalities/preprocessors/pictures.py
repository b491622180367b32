"""Reading of image files by Pillow."""

import io
import re

import numpy as np

from keras_perceiver.modalities.preprocessors.file_rules import FileRule
from keras_perceiver.modalities.preprocessors.orientation import orientation, upright

# Without formats that Pillow reads by starting other programs, such as EPS.
_FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"),
)
# Offset of the bits per channel in a PNG.
PNG_DEPTH = 24
# Values of 16 bits per value of 8 bits, so that 65535 becomes 255.
_PER_LEVEL = 257
# Tags of a TIFF: bits per channel, whether 0 is black, and which page is a thumbnail.
_BITS, _INTERPRETATION, _SUBFILE_TYPE = 258, 262, 254
_IS_WHITE = 0
# Pillow's modes that are supported, and the mode that they are converted to.
_MODES = {
    **{"1": "L", "L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "PA": "RGBA"},
    **{"La": "LA", "RGBa": "RGBA", "RGBX": "RGB", "CMYK": "RGB"},
}
_IS_SHALLOW = FileRule(
    "Images must have at most 8 bits per channel, or 16 if they are PNG or grayscale.",
    "{} bits and mode {}",
    "Convert the file to 8 bits per channel, or to PNG",
)
_IS_PIXELS = FileRule(
    "Images must be grayscale, RGB, palette or CMYK images.",
    "mode {}",
    "Convert the file to RGB",
)
# Without the marker, it is unknown whether 0 or 255 means no ink.
_HAS_MARKER = FileRule(
    "CMYK images in JPEG must have Adobe's marker.", "none", "Convert the file to RGB"
)
_IS_NO_BOMB = FileRule(
    "Images must have at most twice `PIL.Image.MAX_IMAGE_PIXELS` pixels.",
    "{} pixels",
    "Reduce the image, or increase that number and `max_pixels`",
)
_IS_ONE_PAGE = FileRule("TIFF files must have one page.", "{} pages", "Split the file")


def read_image(content, check_size):
    """Returns the upright pixels of an image.

    Args:
        content: Bytes.
        check_size: Callable that takes the height and width in pixels, before anything
            is decoded, and raises an error if they are invalid.

    Returns:
        Array of shape `(height, width, channels)` with values in 0..255. The dtype is
        uint8, or float32 if the file has 16 bits per channel.
    """
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
    except Image.DecompressionBombError as error:  # from the header
        number = re.search(r"\d+", str(error))
        _IS_NO_BOMB.check(False, number and number[0])
    with image:
        check_size(image.height, image.width)
        depth = _depth(image, content)
        is_gray = image.mode.startswith("I;16") or image.mode in ("I", "L", "1")
        is_ppm = image.format == "PPM"  # whose values Pillow scales
        is_deep = is_gray or image.format == "PNG"
        is_read = depth <= 8 or (is_deep and depth == 16) or (is_gray and is_ppm)
        _IS_SHALLOW.check(is_read, depth, image.mode)
        num_pages = _num_pages(image) if image.format == "TIFF" else 1
        _IS_ONE_PAGE.check(num_pages == 1, num_pages)
        # Read before the image, since Exif data after the image data of a PNG do not
        # count.
        exif = image.info.get("exif", b"").removeprefix(b"Exif\0\0")
        image.load()
        pixels = (
            _deep_pixels(content) if depth == 16 and not is_gray else _pixels(image)
        )
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels  # (H, W, C)
    return np.ascontiguousarray(upright(pixels, orientation(exif)))


def _pixels(image):
    """Returns the pixels of a supported format and mode, not yet upright."""
    if image.format == "GIF":
        pixels = np.asarray(image.convert("RGBA"))
        # Transparent pixels are black, as in TensorFlow.
        return pixels[..., :3] * (pixels[..., 3:] > 0)
    if image.mode == "P":
        has_alpha = "transparency" in image.info
        return np.asarray(image.convert("RGBA" if has_alpha else "RGB"))
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        pixels = np.asarray(image).astype("float32") / _PER_LEVEL
        is_tiff = image.format == "TIFF"
        is_inverted = is_tiff and image.tag_v2.get(_INTERPRETATION) == _IS_WHITE
        return 255 - pixels if is_inverted else pixels
    _IS_PIXELS.check(image.mode in _MODES, image.mode)
    if image.mode == "CMYK" and image.format == "JPEG":
        _HAS_MARKER.check("adobe" in image.info)
    return np.asarray(image.convert(_MODES[image.mode]))


def _deep_pixels(content):
    """Returns the pixels of a PNG with 16 bits per channel, which Pillow reduces to 8."""
    import tensorflow as tf

    with tf.device("CPU"):
        pixels = tf.io.decode_png(content, dtype="uint16")
        return pixels.numpy().astype("float32") / _PER_LEVEL


def _depth(image, content):
    """Returns the bits per channel in the file, which may differ from Pillow's."""
    if image.format == "PNG":
        return content[PNG_DEPTH]
    if image.format == "TIFF":
        return max(image.tag_v2.get(_BITS, (1,)))
    if image.format == "PPM":
        header = re.sub(rb"#[^\n]*", b"", content[:1024]).split(maxsplit=4)
        has_depth = header[0] in (b"P2", b"P3", b"P5", b"P6")
        return int(header[3]).bit_length() if has_depth else 1
    if image.format == "JPEG2000":
        size = content.index(b"\xff\x4f\xff\x51")  # the first two markers
        return (content[size + 42] & 0x7F) + 1
    if image.format == "AVIF":
        flags = content[content.index(b"av1C") + 6]
        return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
    return 8


def _num_pages(image):
    """Returns the number of pages without thumbnails."""
    num_pages = 0
    for number in range(image.n_frames):
        image.seek(number)
        num_pages += not image.tag_v2.get(_SUBFILE_TYPE, 0) & 1
    image.seek(0)
    return max(num_pages, 1)
