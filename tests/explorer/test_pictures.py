"""Pictures of every modality, and the elements under a brush on them."""

import io

import numpy as np
import pytest
from PIL import Image as Pillow

from keras_perceiver import (
    Array,
    Audio,
    Image,
    MelSpectrogram,
    PointCloud,
    Sequence,
    Video,
)
from keras_perceiver.explorer.pictures import (
    attention_picture,
    elements_under,
    example_picture,
    output_picture,
)

pytestmark = pytest.mark.one_backend

MODALITIES = {
    "image": (Image((8, 6, 3), num_bands=2, patch_size=2), (4, 3)),
    "video": (Video((4, 8, 8, 1), num_bands=2, patch_size=(2, 4, 4)), (2, 2, 2)),
    "audio": (Audio(80, sample_rate=80, patch_size=8, num_bands=2), (10,)),
    "text": (Sequence(20, vocabulary_size=9, embedding_dim=4, num_bands=2), (20,)),
    "volume": (Array((3, 4, 4, 2), num_bands=2), (3, 4, 4)),
}
MEL = MelSpectrogram(
    400, 400, num_mel_bins=8, frame_length=80, frame_step=40, num_bands=2
)


def _size(png):
    return Pillow.open(io.BytesIO(png)).size


def _brush(picture, left, top, right, bottom):
    """Returns a brush over a part of a picture, given by shares of its sides."""
    width, height = _size(picture.png)
    pixels = np.zeros((height, width, 4), "uint8")
    rows = slice(round(top * height), round(bottom * height))
    pixels[rows, round(left * width) : round(right * width), 3] = 255
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("name", MODALITIES)
def test_left_half_of_every_grid(name):
    modality, grid = MODALITIES[name]
    example = modality.random_inputs(np.random.default_rng(0), 1)[0]
    picture = example_picture(modality, example)
    half = _brush(picture, 0, 0, 0.5 if grid[-1] % 2 == 0 else 0.34, 1)
    found = elements_under(modality, picture, example, half).reshape(grid)
    expected = np.arange(grid[-1]) < (grid[-1] // 2)
    assert (found == expected).all()
    nothing = elements_under(modality, picture, example, _brush(picture, 0, 0, 0, 0))
    assert not nothing.any()
    weights = np.linspace(0, 3, np.prod(grid)).reshape(grid)
    drawn = attention_picture(modality, example, weights, 3.0)
    assert drawn.png != picture.png
    assert _size(drawn.png) == _size(picture.png)


def test_rows_of_an_image_are_from_the_top():
    modality, grid = MODALITIES["image"]
    example = modality.random_inputs(np.random.default_rng(0), 1)[0]
    picture = example_picture(modality, example)
    width, height = _size(picture.png)
    assert height / width == pytest.approx(8 / 6, abs=0.01)
    top = elements_under(modality, picture, example, _brush(picture, 0, 0, 1, 0.25))
    assert top.reshape(grid).all(axis=1).tolist() == [True, False, False, False]


def test_low_frequencies_are_at_the_bottom():
    example = MEL.random_inputs(np.random.default_rng(0), 1)[0]
    picture = example_picture(MEL, example)
    brush = _brush(picture, 0, 0.75, 0.5, 1)
    found = elements_under(MEL, picture, example, brush).reshape(10, 8)
    expected = np.zeros((10, 8), bool)
    expected[:5, :2] = True
    assert (found == expected).all()


def test_points_are_where_they_are_drawn():
    rng = np.random.default_rng(0)
    modality = PointCloud(num_bands=2)
    low, high = rng.uniform(-0.2, 0.2, (2, 30, 3))
    low[:, 2] -= 0.6
    high[:, 2] += 0.6
    points = np.concatenate([low, high]).astype("float32")
    picture = example_picture(modality, points)
    pixels = np.asarray(Pillow.open(io.BytesIO(picture.png)).convert("L"))
    assert (pixels[: len(pixels) // 2] < 200).any()  # drawn in both halves
    assert (pixels[len(pixels) // 2 :] < 200).any()
    top = _brush(picture, 0, 0, 1, 0.5)
    found = elements_under(modality, picture, points, top)
    assert found.tolist() == [False] * 30 + [True] * 30
    assert elements_under(modality, picture, points, _brush(picture, 0, 0, 1, 1)).all()


HIDDEN = (0x6F, 0x87, 0x99)


def _colors(picture):
    return np.asarray(Pillow.open(io.BytesIO(picture.png)).convert("RGB")).reshape(
        -1, 3
    )


def test_large_weights_are_bright_and_hidden_elements_blue_gray():
    points = np.random.default_rng(0).uniform(-1, 1, (300, 3)).astype("float32")
    image = np.zeros((8, 8, 1), "float32")
    for modality, example in (
        (PointCloud(num_bands=2), points),
        (Image((8, 8, 1), num_bands=2), image),
    ):
        weights = np.full(len(example.reshape(-1, example.shape[-1])), 9.0)
        bright, dark, hidden = (
            attention_picture(modality, example, weights * share, 9.0, hidden=is_hidden)
            for share, is_hidden in ((1, False), (0, False), (1, True))
        )
        assert bright.has_colors
        assert _colors(bright).sum(-1).max() > 600
        assert _colors(dark).min(0).max() < 10
        assert (_colors(hidden) == HIDDEN).all(-1).any()
        assert not (_colors(bright) == HIDDEN).all(-1).any()
    curve = attention_picture(
        Array((9, 2), num_bands=2), np.zeros((9, 2)), np.ones(9), 9.0, hidden=True
    )
    assert not curve.has_colors
    assert (_colors(curve) == HIDDEN).all(-1).mean() > 0.9


def test_a_sample_of_large_clouds_is_drawn():
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (50_000, 3))
    points[0] = -1
    weights = np.zeros(50_000)
    weights[7] = 9.0
    picture = attention_picture(PointCloud(), points, weights, 9.0)
    (drawn,) = picture.axis.collections
    assert 20_000 <= len(drawn.get_array()) <= 21_000
    assert drawn.get_array().max() == 9.0
    assert picture.axis.get_xlim()[0] < -0.9  # of all points


@pytest.mark.parametrize(
    "output",
    [
        np.random.default_rng(0).normal(size=(4, 6, 1)),
        np.random.default_rng(0).normal(size=(4, 6, 3)),
        np.random.default_rng(0).normal(size=(2, 4, 6, 5)),
        np.random.default_rng(0).integers(0, 30, (4, 6)),
        np.random.default_rng(0).normal(size=(9, 2)),
    ],
)
def test_outputs_on_a_grid_are_drawn(output):
    png = output_picture(output).png
    pixels = np.asarray(Pillow.open(io.BytesIO(png)).convert("L"))
    assert np.ptp(pixels) > 20


def test_a_brush_is_a_small_image():
    modality, _ = MODALITIES["image"]
    example = modality.random_inputs(np.random.default_rng(0), 1)[0]
    picture = example_picture(modality, example)
    with pytest.raises(ValueError, match="A drawing must be an image"):
        elements_under(modality, picture, example, b"")
