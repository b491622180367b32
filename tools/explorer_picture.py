"""Takes the picture of the explorer for the README and docs/guides/explorer.md.

    KERAS_BACKEND=jax python tools/explorer_picture.py

Trains a small Perceiver on drawings of numbers in a few minutes, opens its page in
headless Chromium, draws a number there, and hides a part of it.
"""

import io
import tempfile
from pathlib import Path

import numpy as np
from common import check_backend
from explorer_page import browser, explorer
from figures import examples, image_alone, parser, trained
from PIL import Image

# A five, in shares of the sides of the canvas.
_STROKES = (
    *(((0.68, 0.2), (0.36, 0.2)), ((0.36, 0.2), (0.34, 0.47))),
    ((0.34, 0.47), (0.48, 0.42), (0.62, 0.47), (0.68, 0.6), (0.64, 0.73), (0.5, 0.8)),
    ((0.5, 0.8), (0.34, 0.76)),
)
# The end of the line, to which most latents attend
_HIDDEN = ((0.3, 0.74), (0.6, 0.8))
_COLORS = 256


def main(arguments=None):
    options = parser(__doc__, epochs=24).parse_args(arguments)
    check_backend()
    import keras

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    inputs, labels = examples(rng, options.examples)
    test = examples(rng, 200)
    model = trained(image_alone(), inputs["image"], labels, options.epochs, test)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs" / "numbers" / "model.keras"
        path.parent.mkdir(parents=True)
        model.save(path)
        with (
            explorer(path.parent) as url,
            browser(url, width=1180, height=1270) as page,
        ):
            for stroke in _STROKES:
                canvas = page.pad(0, "pad-drawing")
                page.changed(lambda c=canvas, s=stroke: page.drag(c, *s))
            page.pad(0, "pad-hide").click()
            brush = page.pad(0, "pad-brush")
            page.changed(lambda: page.drag(brush, *_HIDDEN))
            page.sliding("cross-attend", 2)
            page.driver.execute_script("window.scrollTo(0, 0)")
            content = page.driver.get_screenshot_as_png()
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "explorer.png"
    # Keeps the scale of the attention smooth.
    method, dither = Image.Quantize.MAXCOVERAGE, Image.Dither.NONE
    picture.quantize(_COLORS, method, dither=dither).save(path, optimize=True)
    print(f"written: {path}")


if __name__ == "__main__":
    main()
