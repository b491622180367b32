"""Folders of random files, to try a recipe without its data."""

import wave

import keras
import numpy as np

_NUM_EXAMPLES = 5
_NUM_POINTS = 100


def write_files(folder, files, class_names=("first", "second")):
    """Writes `<folder>/train` and `<folder>/test` of random files, five a class.

    Args:
        folder: Path.
        files: `ImageFiles`, `AudioFiles` or `PointFiles`, whose files they are.
        class_names: Sequence of strings.
    """
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in class_names:
            (folder / part / name).mkdir(parents=True)
            for i in range(_NUM_EXAMPLES):
                _WRITERS[files.input_name](folder / part / name / f"{i}", files, rng)


def _write_image(path, files, rng):
    pixels = rng.integers(0, 256, files.shape)
    keras.utils.save_img(path.with_suffix(".png"), pixels, scale=False)


def _write_audio(path, files, rng):
    samples = rng.integers(-(2**15), 2**15, files.shape[0], "int16")
    with wave.open(str(path.with_suffix(".wav")), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(samples.itemsize)
        file.setframerate(files.sample_rate)
        file.writeframes(samples.astype("<i2").tobytes())


def _write_points(path, files, rng):
    size = files.shape[0] or _NUM_POINTS
    np.save(path.with_suffix(".npy"), rng.normal(size=(size, 3)).astype("float32"))


# By the name of the model's input.
_WRITERS = {"image": _write_image, "audio": _write_audio, "points": _write_points}
