"""What a user gives becomes raw inputs, or an error with the rule."""

import io

import numpy as np
import pytest
from PIL import Image as Pillow

from keras_perceiver import (
    Array,
    Audio,
    AudioPreprocessor,
    Image,
    ImagePreprocessor,
    PointCloud,
    Sequence,
    Video,
)
from keras_perceiver.explorer import Source
from tests.explorer.files import npy, png

pytestmark = pytest.mark.one_backend


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_drawing_has_the_channels_of_the_model(channels):
    shape = (4, 6, channels)
    source = Source(
        "image", Image(shape, num_bands=1), ImagePreprocessor(shape, (0, 1))
    )
    assert source.canvas == (4, 6)
    drawn = np.zeros((8, 12, 4), "uint8")
    drawn[..., 3] = 255
    drawn[:, 6:, :3] = 255  # white on the right
    found = source.drawing(png(drawn))
    assert found.shape == shape
    np.testing.assert_allclose(found[:, :2, 0], 0, atol=1e-6)
    np.testing.assert_allclose(found[:, 4:, 0], 1, atol=1e-6)


def test_files_are_read_by_the_preprocessor_of_the_model():
    preprocessor = ImagePreprocessor((4, 4, 3), value_range=(0, 255))
    source = Source("photo", Image((4, 4, 3), num_bands=1), preprocessor)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype("uint8")
    content = png(pixels)
    found, note = source.file("any/../name.PNG", content)
    np.testing.assert_array_equal(found, preprocessor.read_content(content))
    assert note == ""
    assert source.note == ""
    for name, bad, error in (
        ("a.txt", content, r"must end with \.avif, .*Received: 'a.txt'"),
        ("a.png", b"no image", "must be an image. Received: invalid content"),
        ("a.png", content[:-30], "must be an image. Received: invalid content"),
    ):
        with pytest.raises(ValueError, match=error):
            source.file(name, bad)


def _image_source(channels, **options):
    shape = (4, 6, channels)
    reader = ImagePreprocessor(shape, value_range=(0, 255), **options)
    return Source("image", Image(shape, num_bands=1), reader)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_converted_to_the_channels_of_the_model(mode, channels):
    values = np.random.default_rng(0).integers(0, 256, (4, 6, len(mode)))
    pixels = values.astype("uint8")
    found, note = _image_source(channels).file("a.png", png(pixels.squeeze()))
    # Written from the definition: on white, and the luma of ITU-R 601.
    expected = values.astype("float64")
    if "A" in mode:
        alpha = expected[..., -1:] / 255
        expected = expected[..., :-1] * alpha + 255 * (1 - alpha)
        assert "placed on white where it is transparent" in note
    if expected.shape[-1] > channels:
        expected = expected @ [[0.299], [0.587], [0.114]]
        assert "converted to gray" in note
    elif expected.shape[-1] < channels:
        expected = expected.repeat(channels, -1)
        assert "converted to color" in note
    np.testing.assert_allclose(found, expected, atol=1.5)
    assert (note == "") == (len(mode) == channels)


def test_opaque_and_transparent_palettes_are_converted():
    pixels = np.full((4, 6, 4), 255, "uint8")
    pixels[..., 0] = 0
    found, note = _image_source(3).file("a.png", png(pixels))  # as a screenshot
    assert note == ""
    np.testing.assert_array_equal(found[0, 0], [0, 255, 255])
    file = io.BytesIO()
    palette = Pillow.fromarray(np.zeros((4, 6), "uint8")).convert("P")
    palette.save(file, "PNG", transparency=0)
    found, note = _image_source(1).file("a.png", file.getvalue())
    assert note == (
        "The image was placed on white where it is transparent and converted to gray."
    )
    assert (found == 255).all()
    # Limits hold before anything is converted.
    with pytest.raises(ValueError, match="at most `max_pixels=9` pixels"):
        _image_source(1, max_pixels=9).file("a.png", png(pixels))


@pytest.mark.parametrize(
    ("modality", "suffix"),
    [
        (Image((4, 6, 3), num_bands=1), ".png"),
        (Video((2, 8, 8, 3), num_bands=1), ".npy"),
        (Audio(80, 400, 8, num_bands=1), ".wav"),
        (Audio(80, 400, 8, num_bands=1, use_mask=True), ".wav"),
        (PointCloud(5, num_bands=1), ".npy"),
        (PointCloud(num_features=2, num_bands=1), ".npy"),
    ],
)
def test_a_modality_reads_files_without_a_preprocessor(modality, suffix):
    source = Source("x", modality)
    assert suffix in source.suffixes
    assert "The model has no preprocessor" in source.note
    rng = np.random.default_rng(0)
    suffix, content = source.reader.random_file(rng, 9)
    found, _ = source.file("file" + suffix, content)
    assert modality.is_valid_shape(found.shape)
    batch, mask = source.batch(found)
    assert modality.is_valid_shape(batch.shape[1:])
    assert mask.shape == (1, *batch.shape[1 : 1 + len(modality.mask_shape)])
    assert mask.sum() == np.prod(found.shape[: len(modality.mask_shape)])


def test_limits_of_a_preprocessor_hold():
    pixels = np.zeros((9, 9, 1), "uint8")[..., 0]
    image = Source(
        "image", Image((4, 4, 1)), ImagePreprocessor((4, 4, 1), max_pixels=80)
    )
    with pytest.raises(ValueError, match=r"at most `max_pixels=80` .*Received: 9 x 9"):
        image.file("a.png", png(pixels))
    with pytest.raises(ValueError, match=r"at most `max_pixels=80` pixels"):
        image.drawing(png(pixels))
    with pytest.raises(ValueError, match="Drawings must have at most 1024 x 1024"):
        image.drawing(png(np.zeros((1, 1025), "uint8")))
    with pytest.raises(ValueError, match="A drawing must be an image"):
        image.drawing(b"nothing")
    audio = Source(
        "audio", Audio(8, 400), AudioPreprocessor(400, num_samples=8, max_samples=20)
    )
    _, content = AudioPreprocessor(400, 100).random_file(np.random.default_rng(2))
    with pytest.raises(ValueError, match="at most `max_samples=20` samples"):
        audio.file("a.wav", content)
    audio.reader.max_bytes = 10
    with pytest.raises(ValueError, match="at most `max_bytes=10` bytes"):
        audio.file("a.wav", content)
    with pytest.raises(ValueError, match="Only images can be drawn"):
        audio.drawing(png(pixels))
    with pytest.raises(ValueError, match="must be files that end with"):
        audio.text("1 2 3")


def test_arrays_are_typed_or_dropped():
    source = Source("table", Array((2, 3), num_bands=1))
    assert source.suffixes == (".npy",)
    assert source.note == (
        "Type numbers, one row per line. Or drop a .npy file of shape (2, 3)."
    )
    expected = np.arange(6, dtype="float32").reshape(2, 3)
    np.testing.assert_array_equal(source.text("0, 1, 2\n3;4\t5"), expected)
    np.testing.assert_array_equal(source.file("a.npy", npy(expected))[0], expected)
    for text, error in (
        ("1 2 x", r"must be numbers, separated .*Received: 'x'"),
        ("1 2 nan 1 1 1", "must be finite numbers"),
        ("1 2", r"numbers of shape \(2, 3\), one row per line. Received: 2 numbers"),
        ("", r"Received: 0 numbers"),
    ):
        with pytest.raises(ValueError, match=error):
            source.text(text)
    for array, error in (
        (np.zeros((3, 2)), r"Received: shape \(1, 3, 2\)"),
        (np.full((2, 3), np.inf), "must be finite numbers"),
        (np.array([{}]), "must contain an array of numbers. Received: object"),
    ):
        content = io.BytesIO()
        np.save(content, array, allow_pickle=True)
        with pytest.raises(ValueError, match=error):
            source.file("a.npy", content.getvalue())


def test_sequences_are_typed_as_text_or_ids():
    text = Source("text", Sequence(8, 256, 4, num_bands=1))
    assert text.text("Grüß").tolist() == [*"Grüß".encode(), 0, 0]
    masked = Source("text", Sequence(8, 256, 4, num_bands=1, use_mask=True))
    assert masked.text("Hi").tolist() == [72, 105]
    batch, mask = masked.batch(masked.text("Hi"))
    assert batch.tolist() == [[72, 105, 0, 0, 0, 0, 0, 0]]
    assert mask.sum() == 2
    with pytest.raises(ValueError, match="from 1 to 8 ids. Received: 9"):
        text.text("123456789")
    assert "Type a text" in masked.note
    assert "a .npy file of any length" in masked.note
    ids = Source("ids", Sequence(3, 5, 4, num_bands=1))
    assert ids.text("4, 0 1").tolist() == [4, 0, 1]
    with pytest.raises(ValueError, match=r"must be in \[0, 4\]"):
        ids.text("5 0 0")
    with pytest.raises(ValueError, match="must be integers. Received: 0.5"):
        ids.text("0.5")
    with pytest.raises(ValueError, match="must be finite numbers"):
        ids.text("1e12")


def test_an_example_may_lack_a_modality():
    source = Source("points", PointCloud(num_bands=1, use_mask=True))
    batch, mask = source.batch(None)
    assert batch.shape[1:] == source.modality.example_shape
    assert not mask.any()
