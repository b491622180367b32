import io

import numpy as np
import pytest
import tensorflow as tf

from keras_perceiver import ImagePreprocessor
from tests.data.files import PHOTO, cut, write_bytes, write_image
from tests.modalities.preprocessors.checks import (
    check_bad_files,
    check_graph_form,
    check_preprocessor,
    check_rule,
    graph_form,
)

pytestmark = pytest.mark.one_backend


@pytest.mark.parametrize(
    "arguments",
    [
        {"shape": (6, 8, 3)},
        {"shape": (9, 5, 1), "value_range": (0, 255), "crop_to_aspect_ratio": True},
        {"shape": (7, 5, 4), "crop_fraction": 0.7, "interpolation": "bicubic"},
        {"shape": (6, 8, 1), "max_pixels": 200},
    ],
)
def test_contract(arguments, tmp_path):
    check_preprocessor(ImagePreprocessor(**arguments), tmp_path)


def test_pixels_are_scaled_to_the_value_range(tmp_path):
    path = tmp_path / "a.png"
    pixels = write_image(path, (6, 8, 3))
    for low, high in ((-1, 1), (0, 255), (0, 1), (-3, 2)):
        image = ImagePreprocessor((6, 8, 3), value_range=(low, high)).read(path)
        expected = low + pixels / 255 * (high - low)
        np.testing.assert_allclose(image, expected, rtol=1e-6, atol=1e-6)


def test_images_are_resized_with_antialiasing(tmp_path):
    path = tmp_path / "a.png"
    stripes = np.zeros((64, 64, 1), "uint8")
    stripes[:, ::2] = 255
    write_bytes(path, tf.io.encode_png(stripes).numpy())
    # Without it, only one of sixteen columns would be sampled, all of one color.
    for interpolation in ("bilinear", "bicubic"):
        resized = ImagePreprocessor((4, 4, 1), interpolation=interpolation).read(path)
        assert np.abs(resized).max() < 0.2


def test_images_are_cropped_in_the_center(tmp_path):
    for shape, crop in (((4, 8, 1), np.s_[:, 2:6]), ((8, 4, 1), np.s_[2:6])):
        path = tmp_path / "a.png"
        pixels = write_image(path, shape)
        expected = pixels[crop] / 127.5 - 1
        cropped = ImagePreprocessor((4, 4, 1), crop_to_aspect_ratio=True).read(path)
        np.testing.assert_allclose(cropped, expected, atol=1e-6)
        distorted = ImagePreprocessor((4, 4, 1)).read(path)
        assert np.abs(distorted - expected).max() > 0.1


def test_a_fraction_of_the_image_is_kept(tmp_path):
    path = tmp_path / "a.png"
    pixels = write_image(path, (8, 12, 1))
    half = ImagePreprocessor((4, 6, 1), crop_fraction=0.5).read(path)
    np.testing.assert_allclose(half, pixels[2:6, 3:9] / 127.5 - 1, atol=1e-6)
    square = ImagePreprocessor((4, 4, 1), crop_fraction=0.5, crop_to_aspect_ratio=True)
    expected = pixels[2:6, 4:8] / 127.5 - 1
    np.testing.assert_allclose(square.read(path), expected, atol=1e-6)


def test_crops_of_imagenet_equal_resizing_and_cutting():
    """DeepMind resizes the shorter side to 256 pixels and crops 224 from the center."""
    rows, columns = np.mgrid[:120, :200]
    image = np.stack([columns, rows, np.full_like(rows, 100)], -1).astype("uint8")
    preprocessor = ImagePreprocessor(
        (48, 48, 3),
        value_range=(0, 255),
        crop_to_aspect_ratio=True,
        crop_fraction=48 / 60,
        interpolation="bicubic",
    )
    whole = tf.image.resize(image, (60, 100), "bicubic", antialias=True)
    np.testing.assert_allclose(
        preprocessor.convert(image), whole[6:54, 26:74], atol=1.5
    )


def _file(mode, format, **options):
    """Returns the bytes of a smooth image, as photographs are."""
    pixels = PHOTO if "A" in mode else PHOTO.convert("RGB")
    content = io.BytesIO()
    pixels.convert(mode).save(content, format, **options)
    return content.getvalue()


def _gif(**options):
    others = [PHOTO.rotate(180).convert("RGB").convert("P")]
    return _file("P", "GIF", save_all=True, append_images=others, **options)


def _top_down_bmp():
    """Returns a BMP whose rows go from top to bottom, by a negative height."""
    content = bytearray(_file("RGB", "BMP"))
    content[22:26] = (-23).to_bytes(4, "little", signed=True)
    return bytes(content)


FILES = [
    *[
        (3, _file("RGB", "JPEG", quality=quality, subsampling=subsampling))
        for quality in (50, 95)
        for subsampling in (0, 1, 2)
    ],
    (3, _file("RGB", "JPEG", progressive=True)),
    (1, _file("L", "JPEG")),
    (1, _file("L", "PNG")),
    (2, _file("LA", "PNG")),
    (3, _file("RGB", "PNG")),
    (4, _file("RGBA", "PNG")),
    (1, _file("1", "PNG")),
    (3, _file("P", "PNG")),
    (3, _file("P", "PNG", bits=4)),
    (4, _file("P", "PNG", transparency=3)),
    (3, _file("RGB", "BMP")),
    (3, _top_down_bmp()),
    (3, _gif()),
    (3, _gif(transparency=3)),
]


def test_both_forms_give_the_same_pixels(subtests):
    """Pillow and TensorFlow decode every format that both read alike."""
    for number, (channels, content) in enumerate(FILES):
        with subtests.test(number=number, channels=channels):
            for shape in ((23, 31, channels), (10, 9, channels)):
                check_graph_form(ImagePreprocessor(shape), [content])


@pytest.mark.parametrize("format", ["AVIF", "DIB", "JPEG2000", "PPM", "TIFF", "WEBP"])
def test_formats_that_the_host_alone_reads(format):
    preprocessor = ImagePreprocessor((23, 31, 3))
    content = _file("RGB", format)
    assert preprocessor.read_content(content).shape == (23, 31, 3)
    _, error = graph_form(preprocessor)(content)
    assert b"PNG, JPEG, BMP or GIF if TensorFlow decodes them" in error.numpy()


def _png_of_16_bits():
    return tf.io.encode_png(np.zeros((6, 8, 3), "uint16")).numpy()


def test_both_forms_keep_the_same_rules(subtests):
    for content, message in (
        (_file("L", "PNG"), "must have 3 channels.*channels=1. Convert"),
        (_file("RGBA", "PNG"), "must have 3 channels.*channels=4. Convert"),
    ):
        with subtests.test(message=message):
            check_rule(ImagePreprocessor((6, 8, 3)), content, message)
    small = ImagePreprocessor((6, 8, 3), max_pixels=712)
    message = "at most `max_pixels=712` pixels. Received: 23 x 31. Reduce"
    for content in (_file("RGB", "JPEG"), _file("RGB", "PNG"), _gif(), _top_down_bmp()):
        check_rule(small, content, message)


def test_rules_of_the_graph_alone():
    """A server does not decode arbitrary files."""
    in_graph = graph_form(ImagePreprocessor((6, 8, 3)))
    bomb = tf.io.encode_png(tf.zeros((10_000, 10_000, 1), "uint8")).numpy()
    for content, message in (
        (b"hello", b"must be PNG, JPEG, BMP or GIF"),
        (bomb, b"`max_pixels=89478485` pixels. Received: 10000 x 10000. Reduce"),
        (_file("P", "BMP"), b"24 bits per pixel if TensorFlow decodes them"),
        (_png_of_16_bits(), b"8 bits per channel if TensorFlow decodes them"),
        (_file("CMYK", "JPEG"), b"palette images if TensorFlow decodes them"),
    ):
        inputs, error = in_graph(content)
        assert message in error.numpy()
        assert inputs.shape == (6, 8, 3)


def _cut(suffix, **options):
    def write(path):
        write_bytes(path, _file("RGB", suffix, **options))
        cut(path, 50)

    return write


def _text(content):
    return lambda path: write_bytes(path, content.encode())


RGB = ImagePreprocessor((6, 8, 3))
BAD_FILES = [
    (RGB, "a.png", _cut("PNG"), "must be an image.*invalid content"),
    (RGB, "a.jpg", _cut("JPEG"), "must be an image.*truncated"),
    (RGB, "a.jpg", _text("hello"), r"cannot identify image file\)"),
    (RGB, "a.png", _text(""), r"cannot identify image file\)"),
    (
        RGB,
        "a.png",
        lambda path: write_image(path, (6, 8, 1)),
        "must have 3 channels.*channels=1.*Convert",
    ),
    (
        ImagePreprocessor((6, 8, 1)),
        "a.png",
        write_image,
        "must have 1 channel, .*channels=3",
    ),
]


def test_bad_files_are_named(tmp_path, subtests):
    check_bad_files(BAD_FILES, tmp_path, subtests)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (8, 8)}, r"\(height, width, channels\).*Pass 3 sizes"),
        ({"shape": (8, 0, 3)}, "`width` must be a positive integer"),
        ({"shape": (8, 8, 3), "value_range": (1, -1)}, "two finite numbers in order"),
        ({"shape": (8, 8, 3), "max_pixels": 0}, "`max_pixels` must be a positive"),
        ({"shape": (8, 8, 3), "crop_fraction": 0.0}, r"must be in \(0, 1\]"),
        ({"shape": (8, 8, 3), "interpolation": "area"}, "must be one of.*bicubic"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ImagePreprocessor(**arguments)
