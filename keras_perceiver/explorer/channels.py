"""Conversion of images to the channels of a model, for files that a user drops.

Preprocessors refuse other channels, which among training data are usually a mistake.
"""

from __future__ import annotations

import io

import numpy as np

from keras_perceiver.modalities.preprocessors.pictures import read_image

# Pillow's modes by number of channels.
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_WORDS = {1: "gray", 3: "color"}
_OPAQUE = 255
_WHITE = (255, 255, 255, _OPAQUE)


def converted_image(
    content: bytes, channels: int | None, max_pixels: int
) -> tuple[bytes, str]:
    """Returns an image with the channels of a model, and how it was converted.

    Args:
        content: Bytes of an image file.
        channels: Integer, number of channels.
        max_pixels: Integer, maximum number of pixels of an image that is converted.

    Returns:
        Pair of bytes, of a PNG file if the image was converted, and a sentence, `""` if
        it looks the same. The bytes are the given ones if the channels are those of the
        model, if it has neither one channel nor three, or if they cannot be read.
    """
    from PIL import Image

    if channels not in _WORDS:
        return content, ""
    try:
        pixels = read_image(content, lambda h, w: _check_size(h * w, max_pixels))
    except Exception:  # which the preprocessor refuses as well, with its own error
        return content, ""
    received = pixels.shape[-1]
    if received == channels:
        return content, ""
    pixels = np.round(pixels).astype("uint8")
    image = Image.fromarray(pixels.squeeze(-1) if received == 1 else pixels)
    words = []
    if "A" in MODES[received]:
        paper = Image.new("RGBA", image.size, _WHITE)
        image = Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
        if (pixels[..., -1] < _OPAQUE).any():
            words.append("placed on white where it is transparent")
    if (received > 2) != (channels == 3):
        words.append(f"converted to {_WORDS[channels]}")
    file = io.BytesIO()
    image.convert(MODES[channels]).save(file, "PNG", compress_level=1)  # fast
    return file.getvalue(), f"The image was {' and '.join(words)}." if words else ""


def _check_size(num_pixels, max_pixels):
    if num_pixels > max_pixels:
        raise ValueError
