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


def _exif(orientation):
    """Returns Exif data with an orientation alone."""
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)


def _png(depth, kind, channels, size=(4, 4), pixels=None, chunks=()):
    """Returns a PNG of zeros, or of big-endian pixels."""

    def chunk(name, data):
        size, check = len(data), zlib.crc32(name + data)
        return struct.pack(">I", size) + name + data + struct.pack(">I", check)

    width, height = size
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    rows = bytes((1 + width * channels * depth // 8) * height)
    if pixels is not None:
        rows = b"".join(b"\0" + row.tobytes() for row in pixels)  # without a filter
    data = chunk(b"IDAT", zlib.compress(rows)) if width < 100 else b""
    others = b"".join(chunk(*item) for item in dict(chunks).items())
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + others + data + chunk(b"IEND", b"")


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


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_16_bit_png_images_keep_all_levels(kind, channels, orientation):
    levels = np.arange(5 * 4 * channels).reshape(5, 4, channels) * 17  # 12 bits
    chunks = {b"eXIf": _exif(orientation)} if orientation > 1 else {}
    pixels = _read(_png(16, kind, channels, (4, 5), levels.astype(">u2"), chunks))
    expected = np.rot90(levels, -1) if orientation == 6 else levels
    np.testing.assert_allclose(pixels, expected / 257, rtol=1e-6)


def test_colors_of_inks():
    """The formulas of the adapters of Adobe's and of TIFF's inks, in 0..255."""
    inks = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype="uint8")
    image, content = Image.fromarray(inks, "CMYK"), io.BytesIO()
    image.save(content, "TIFF")
    colors = (255 - inks[..., :3]) / 255 * (255.0 - inks[..., 3:])
    np.testing.assert_allclose(_read(content.getvalue()), colors, atol=1)
    large = image.resize((64, 64), Image.Resampling.NEAREST)
    content = io.BytesIO()
    large.save(content, "JPEG", quality=95, subsampling=0)
    import tensorflow as tf

    expected = tf.io.decode_jpeg(
        content.getvalue(), channels=3, dct_method="INTEGER_ACCURATE"
    )
    pixels = _read(content.getvalue()).astype("int64")
    np.testing.assert_allclose(pixels, expected, atol=2)
    np.testing.assert_allclose(pixels[4::8, 4::8], colors, atol=20)


def _without_marker():
    """Returns a JPEG of inks whose Adobe marker is a comment."""
    return _file("JPEG", "CMYK").replace(b"\xff\xee\0\x0eAdobe", b"\xff\xfe\0\x0eAdobe")


BAD = {
    "TIFF of 16 bits": (
        _tiff(16, 3),
        "8 bits per channel.*16 bits and mode RGB.*or to PNG",
    ),
    "PPM of 16 bits": (PPM_16, "8 bits per channel.*16 bits and mode RGB"),
    "floats": (_file("TIFF", "F"), "8 bits per channel.*32 bits and mode F"),
    "integers": (_file("TIFF", "I"), "8 bits per channel.*32 bits and mode I"),
    "unknown inks": (_without_marker(), "Adobe's marker. Received: none. Convert"),
    "too large for Pillow": (
        _png(1, 0, 1, (20_000, 20_000)),
        "twice `PIL.*MAX_IMAGE_PIXELS`.*400000000 pixels. Reduce",
    ),
    "LAB": (_file("TIFF", "LAB"), "RGB, palette or CMYK images.*mode LAB"),
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
