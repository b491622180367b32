"""The Exif orientation against Pillow, on the host and in a graph."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from keras_perceiver import ImagePreprocessor
from keras_perceiver.modalities.preprocessors.orientation import orientation
from tests.modalities.preprocessors.checks import graph_form

pytestmark = pytest.mark.one_backend

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype("uint8")


def _file(format, exif):
    content = io.BytesIO()
    Image.fromarray(PIXELS).save(content, format, exif=exif)
    return content.getvalue()


def _exif(order, value, kind=3, before=()):
    """Returns Exif data with the orientation after other entries."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    entries = [struct.pack(f"{order}HHII", tag, 4, 1, 9) for tag in before]
    number = struct.pack(f"{order}{'H' if kind == 3 else 'I'}", value).ljust(4, b"\0")
    entries.append(struct.pack(f"{order}HHI", 274, kind, 1) + number)
    count = struct.pack(f"{order}H", len(entries))
    start = struct.pack(f"{order}I", 8)
    return b"Exif\0\0" + head + start + count + b"".join(entries) + bytes(4)


@pytest.fixture(scope="module")
def in_graph():
    """Returns the graph forms for both shapes of an image, upright and rotated."""
    shapes = ((5, 7, 3), (7, 5, 3))
    return {s: graph_form(ImagePreprocessor(s, value_range=(0, 255))) for s in shapes}


def _check(content, in_graph):
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    read = ImagePreprocessor(expected.shape, (0, 255)).read_content(content)
    np.testing.assert_array_equal(read, expected)
    if in_graph is not None:
        pixels, error = in_graph[expected.shape](tf.constant(content))
        assert error.numpy() == b""
        np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_orientation(format, in_graph):
    in_graph = in_graph if format in ("JPEG", "PNG") else None
    for value in range(10):  # other values than 1 to 8 are ignored
        exif = Image.Exif()
        exif[274] = value
        _check(_file(format, exif), in_graph)


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientations_as_cameras_write_them(order, in_graph):
    for value, kind, before in ((6, 3, ()), (8, 4, (256, 271)), (3, 3, (256,))):
        exif = _exif(order, value, kind, before)
        assert orientation(exif.removeprefix(b"Exif\0\0")) == value
        for format in ("JPEG", "PNG"):
            _check(_file(format, exif), in_graph)


def test_damaged_exif_data_are_ignored(in_graph):
    good = _exif("<", 6)
    for exif in (good[:20], b"Exif\0\0hello", good.replace(b"II*", b"XX*")):
        assert orientation(exif.removeprefix(b"Exif\0\0")) == 1
        pixels, error = in_graph[5, 7, 3](_file("PNG", exif))
        assert error.numpy() == b""
        np.testing.assert_array_equal(pixels, PIXELS)
    assert orientation(None) == orientation(b"") == 1


def test_exif_data_behind_the_pixels_of_a_png_do_not_count(in_graph):
    content = _file("PNG", _exif("<", 6))
    start, end = content.index(b"eXIf") - 4, content.index(b"IDAT") - 4
    chunk, place = content[start:end], content.index(b"IEND") - 4
    content = content[:start] + content[end:place] + chunk + content[place:]
    assert b"eXIf" in content
    read = ImagePreprocessor((5, 7, 3), (0, 255)).read_content(content)
    np.testing.assert_array_equal(read, PIXELS)
    np.testing.assert_array_equal(in_graph[5, 7, 3](content)[0], PIXELS)


def test_red_is_on_top():
    """A camera that was held upright, with a rotated sensor."""
    pixels = np.zeros((16, 24, 3), "uint8")
    pixels[:, :12] = 255, 0, 0
    content = io.BytesIO()
    exif = _exif(">", 6)
    Image.fromarray(pixels).save(content, "JPEG", exif=exif, quality=100)
    read = ImagePreprocessor((24, 16, 3)).read_content(content.getvalue())
    np.testing.assert_allclose(read[2, 13], [1, -1, -1], atol=0.02)
    np.testing.assert_allclose(read[20, 2], [-1, -1, -1], atol=0.02)
