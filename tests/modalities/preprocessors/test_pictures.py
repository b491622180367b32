"""Pixels that Pillow reads, compared with the content of files."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from keras_perceiver.modalities.preprocessors.pictures import read_image
from tests.data.files import PHOTO

pytestmark = pytest.mark.one_backend


def _read(content):
    return read_image(content, lambda height, width: None)


def _file(format, mode="RGB", **options):
    content = io.BytesIO()
    image = PHOTO if "A" in mode else PHOTO.convert("RGB")
    image.convert(mode).save(content, format, **options)
    return content.getvalue()


def _gray_16(format, **options):
    content = io.BytesIO()
    Image.fromarray(GRAY).save(content, format, **options)
    return content.getvalue()


def _png(depth, kind, channels, size=(4, 4)):
    """Returns a PNG of zeros."""

    def chunk(name, data):
        size, check = len(data), zlib.crc32(name + data)
        return struct.pack(">I", size) + name + data + struct.pack(">I", check)

    width, height = size
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    rows = bytes((1 + width * channels * depth // 8) * height)
    data = chunk(b"IDAT", zlib.compress(rows)) if width < 100 else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def _tiff(depth, channels):
    """Returns a TIFF of 4 x 4 pixels with the minimum of tags."""
    size = 16 * channels * depth // 8
    start = 8 + 2 + 9 * 12 + 4
    tags = [(256, 4), (257, 4), (258, start), (259, 1), (262, 2), (273, start + 8)]
    tags += [(277, channels), (278, 4), (279, size)]
    rows = [
        struct.pack("<HHII", tag, 3, channels if tag == 258 else 1, value)
        for tag, value in tags
    ]
    depths = struct.pack("<4H", *[depth] * 4)
    header = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return header + b"".join(rows) + bytes(4) + depths + bytes(size)


GRAY = (np.arange(64).reshape(8, 8) * 1040).astype("uint16")
PPM_16 = b"P6 4 4 65535\n" + np.arange(48, dtype=">u2").tobytes()
PGM_10 = b"P5 # ten bits\n4 4 1023\n" + np.arange(0, 960, 60, dtype=">u2").tobytes()


@pytest.mark.parametrize(
    ("format", "mode", "channels"),
    [
        *[(name, "RGB", 3) for name in ("BMP", "DIB", "GIF", "JPEG", "PNG", "PPM")],
        *[(name, "RGB", 3) for name in ("AVIF", "JPEG2000", "TIFF", "WEBP", "MPO")],
        *[(name, "L", 1) for name in ("AVIF", "BMP", "JPEG", "JPEG2000", "PNG")],
        *[(name, "L", 1) for name in ("PPM", "TIFF")],
        *[(name, "1", 1) for name in ("BMP", "PNG", "PPM", "TIFF")],
        *[(name, "P", 3) for name in ("BMP", "GIF", "PNG", "TIFF")],
        *[(name, "LA", 2) for name in ("JPEG2000", "PNG", "TIFF")],
        *[(name, "RGBA", 4) for name in ("AVIF", "JPEG2000", "PNG", "TIFF", "WEBP")],
        ("WEBP", "L", 3),  # without orientation
        ("JPEG", "YCbCr", 3),
    ],
)
def test_formats_and_modes(format, mode, channels):
    pixels = _read(_file(format, mode))
    assert pixels.shape == (PHOTO.height, PHOTO.width, channels)
    assert pixels.dtype == "uint8"
    expected = PHOTO if "A" in mode else PHOTO.convert("RGB")
    expected = expected.convert(mode).convert(
        {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    )
    is_lossy = format in ("AVIF", "GIF", "JPEG", "MPO", "WEBP")
    expected = np.asarray(expected).reshape(pixels.shape).astype("int64")
    assert np.abs(pixels - expected).mean() < (12 if is_lossy else 1e-9)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_16_bit_grayscale_images_keep_all_levels(format):
    pixels = _read(_gray_16(format))
    np.testing.assert_allclose(pixels[..., 0], GRAY / 257, rtol=1e-6)
    assert len(np.unique(pixels)) == 64


def test_grayscale_values_of_other_ranges():
    white = _read(_gray_16("TIFF", tiffinfo={262: 0}))  # in which 0 is white
    np.testing.assert_allclose(white[..., 0], 255 - GRAY / 257, atol=1e-4)
    ten_bits = _read(PGM_10)
    np.testing.assert_allclose(
        ten_bits.ravel(), np.arange(0, 960, 60) / 1023 * 255, atol=0.01
    )


def test_first_frames_of_animations():
    others = [PHOTO.convert("RGB").rotate(180)]
    for format in ("PNG", "WEBP"):
        content = _file(format, save_all=True, append_images=others, lossless=True)
        first = _read(content)[..., :3]  # animations may have alpha
        np.testing.assert_array_equal(first, PHOTO.convert("RGB"))


BAD = {
    "colors of 16 bits": (_png(16, 2, 3), "8 bits per channel.*16 bits and mode RGB"),
    "gray and alpha of 16 bits": (_png(16, 4, 2), "8 bits per channel.*16 bits"),
    "TIFF of 16 bits": (_tiff(16, 3), "8 bits per channel.*16 bits and mode RGB"),
    "PPM of 16 bits": (PPM_16, "8 bits per channel.*16 bits and mode RGB"),
    "floats": (_file("TIFF", "F"), "8 bits per channel.*32 bits and mode F"),
    "integers": (_file("TIFF", "I"), "8 bits per channel.*32 bits and mode I"),
    "CMYK": (_file("JPEG", "CMYK"), "grayscale, RGB or palette.*mode CMYK"),
    "LAB": (_file("TIFF", "LAB"), "grayscale, RGB or palette.*mode LAB"),
    "two pages": (
        _file("TIFF", save_all=True, append_images=[PHOTO.convert("RGB")]),
        "one page.*2 pages",
    ),
    "other content": (b"hello", "cannot identify"),
    "a drawing that starts Ghostscript": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
        "cannot identify",
    ),
    **{
        f"{format} that is cut": (_file(format)[:-100], "(?i)trunc|broken|decode")
        for format in ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP")
    },
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_unsupported_files(content, message):
    with pytest.raises(Exception, match=message):  # of any class
        _read(content)


def test_the_size_is_checked_before_anything_is_decoded():
    def check(height, width):
        raise ValueError(f"{height} x {width}")

    with pytest.raises(ValueError, match="7000 x 9000"):
        read_image(_png(8, 0, 1, (9000, 7000)), check)
