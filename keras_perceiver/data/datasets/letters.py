"""Letters drawn in the fonts that Matplotlib ships: data that need no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from keras_perceiver._checks import check_positive
from keras_perceiver._matplotlib import matplotlib

# Families, so that a font of the test is not the bold form of one in the training.
_FONTS = ("DejaVuSans", "STIXGeneral", "cmb10", "cmr10", "cmti10")
_TEST_FONTS = ("DejaVuSerif", "cmss10", "cmtt10")
_NO_TEXT = "Display"


def draw_letters(
    num_examples: int,
    size: int = 32,
    seed: int = 0,
    characters: str = "ABCDEFGHIJ",
    use_test_fonts: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws images of letters in many fonts, each moved, turned and scaled at random.

    A synthetic dataset of any size, to try models on: harder than digits of 8 x 8 pixels,
    and with fonts for testing that are not among those for training. It needs
    Matplotlib, whose fonts it uses.

    Args:
        num_examples: Integer.
        size: Integer, height and width of the images, in pixels.
        seed: Integer, seed of all that is random.
        characters: String, one class per character.
        use_test_fonts: Boolean, whether to draw in the fonts for testing.

    Returns:
        Pair of NumPy arrays: float32 images `(num_examples, size, size, 1)` from -1, the
        background, to 1, and int32 labels `(num_examples,)`, indices of `characters`.

    Raises:
        ImportError: if Matplotlib is not installed.
        ValueError: if a size is not positive, or if there are no characters.

    Example:

    >>> from keras_perceiver.data import draw_letters
    >>> images, labels = draw_letters(4, size=24)
    >>> images.shape, labels.shape
    ((4, 24, 24, 1), (4,))
    """
    check_positive(num_examples=num_examples, size=size)
    if not characters:
        raise ValueError(
            "`characters` must contain a character for each class. Received: "
            f"characters={characters!r}. Give one or more."
        )
    from PIL import Image, ImageDraw, ImageFont

    rng = np.random.default_rng([seed, use_test_fonts])
    paths = _font_paths(_TEST_FONTS if use_test_fonts else _FONTS)
    labels = rng.integers(len(characters), size=num_examples).astype("int32")
    images = np.empty((num_examples, size, size, 1), "float32")
    fonts: dict = {}
    for image, label in zip(images, labels, strict=True):
        key = int(rng.integers(len(paths))), round(size * rng.uniform(0.6, 0.9))
        if key not in fonts:
            fonts[key] = ImageFont.truetype(paths[key[0]], key[1])
        x, y = size / 2 + rng.uniform(-0.1, 0.1, 2) * size
        picture = Image.new("L", (size, size))
        ImageDraw.Draw(picture).text(
            (x, y), characters[label], fill=255, font=fonts[key], anchor="mm"
        )
        picture = picture.rotate(
            rng.uniform(-15, 15), resample=Image.Resampling.BILINEAR
        )
        image[..., 0] = np.asarray(picture, "float32") / 127.5 - 1
    return images, labels


def _font_paths(families: tuple[str, ...]) -> list[Path]:
    folder = Path(matplotlib().get_data_path(), "fonts", "ttf")
    return [
        path
        for path in sorted(folder.glob("*.ttf"))
        if path.name.startswith(families) and _NO_TEXT not in path.name
    ]
