"""Sizes for a folder of files: settings of the recipes `images`, `audio` and `points`.

Only the headers of the files are read, and Keras is not imported.
"""

import collections
import wave
from pathlib import Path

import numpy as np

from keras_perceiver._checks import check_choice

# Maximum grid of elements, 16 x 16, for a small model on a CPU.
_GRID = 16
_MAX_SIDE = 64  # pixels
_MAX_SECONDS = 10
_MAX_POINTS = 1024
# Number of examples over all epochs that a small model needs, and limits of epochs.
_NUM_EXAMPLES, _MIN_EPOCHS, _MAX_EPOCHS = 130_000, 10, 160
_BATCH_SIZES = {0: 8, 200: 16, 400: 32, 5_000: 64}
_MAX_HEADERS = 2_000


def settings(kind, folder):
    """Returns overrides of the recipe for a kind of files, and a description of the data.

    Args:
        kind: String, the recipe: `"images"`, `"audio"` or `"points"`.
        folder: Path of a folder with files at `CLASS/FILE`, or with two such folders
            named `train` and `test`.

    Returns:
        Pair of a dict, see `Recipe.replace`, and a string.

    Raises:
        ValueError: if there is no file of this kind, or if none can be read.
    """
    check_choice("`kind`", kind, list(_KINDS))
    suffixes, sizes = _KINDS[kind]
    folder = Path(folder).expanduser()
    has_parts = any((folder / part).is_dir() for part in ("train", "test"))
    train = folder / "train" if has_parts else folder
    files = [
        path
        for path in sorted(train.glob("*/*"))
        if path.suffix.lower() in suffixes and not path.name.startswith(".")
    ]
    classes = sorted({path.parent.name for path in files})
    if len(classes) < 2:
        raise ValueError(
            f"Files must be at {train}/CLASS/FILE, in two classes or more, and end with "
            f"{', '.join(suffixes)}. Received: {len(files)} such files in the classes "
            f"{classes}. Make a folder for each class."
        )
    chosen, text = sizes(_sample(files))
    return {
        **chosen,
        **schedule(len(files)),
    }, f"{len(files):,} files of {len(classes)} classes, {text}"


def schedule(num_examples):
    """Returns the epochs and the batch size for a number of training examples.

    Args:
        num_examples: Integer.

    Returns:
        Dict with `"epochs"` and `"batch_size"`.
    """
    epochs = round(_NUM_EXAMPLES / num_examples)
    sizes = [size for least, size in _BATCH_SIZES.items() if num_examples >= least]
    return {
        "epochs": min(max(epochs, _MIN_EPOCHS), _MAX_EPOCHS),
        "batch_size": sizes[-1],
    }


def _sample(files):
    """Returns an evenly spaced subset of files."""
    return files[:: -(-len(files) // _MAX_HEADERS)]


def _readable(files, read):
    """Returns what is read from files, without invalid ones, which are reported later."""
    found, first = [], None
    for path in files:
        try:
            found.append(read(path))
        except Exception as error:  # libraries raise various classes
            first = first or (path, error)
    if not found:
        path, reason = first
        raise ValueError(
            "A folder must have a valid file. Received: "
            f"{len(files)} invalid files, the first: {path} ({reason}). Convert or "
            "repair them."
        )
    return found


def _images(files):
    from PIL import Image

    def read(path):
        with Image.open(path) as image:
            return *image.size, _num_channels(image)

    found = np.array(_readable(files, read))
    width, height = np.median(found[:, :2], axis=0)
    (channels, _), *_ = collections.Counter(found[:, 2].tolist()).most_common()
    # The larger side has the maximum number of patches.
    side = min(max(width, height), _MAX_SIDE)
    patch_size = max(1, round(side / _GRID))
    scale = side / max(width, height) / patch_size
    grid = [max(1, round(length * scale)) for length in (height, width)]
    shape = (grid[0] * patch_size, grid[1] * patch_size, channels)
    text = f"mostly {width:.0f} x {height:.0f} pixels in {channels} channels: read as "
    text += f"{shape[1]} x {shape[0]}, in patches of {patch_size} x {patch_size}"
    return {
        "preprocessor.shape": shape,
        "model.modality.modality.shape": shape,
        "model.modality.modality.patch_size": patch_size,
        "model.modality.modality.num_bands": max(1, max(grid) // 2),
    }, text


def _num_channels(image):
    """Returns the number of channels that the preprocessor reads from a Pillow image."""
    if image.mode != "P":
        return len(image.getbands())
    has_alpha = image.format != "GIF" and "transparency" in image.info
    return 4 if has_alpha else 3


def _audio(files):
    found = _readable(files, _rate_and_length)
    (rate, _), *_ = collections.Counter(rate for rate, _ in found).most_common()
    lengths = [length * rate / other for other, length in found]
    is_mixed = len({rate for rate, _ in found}) > 1
    longest = min(float(np.quantile(lengths, 0.95)), _MAX_SECONDS * rate)
    # Frames of about 64 milliseconds.
    frame_length = 2 ** round(np.log2(0.064 * rate))
    num_samples = max(frame_length, round(longest))
    modality = "model.modality.modality"
    resample = {"preprocessor.resample": True} if is_mixed else {}
    return {
        "preprocessor.sample_rate": rate,
        "preprocessor.num_samples": num_samples,
        f"{modality}.sample_rate": rate,
        f"{modality}.num_samples": num_samples,
        f"{modality}.frame_length": frame_length,
        f"{modality}.frame_step": frame_length // 4,
        **resample,
    }, (
        f"mostly {np.median(lengths) / rate:.2f} s at {rate:,} Hz: read up to "
        f"{num_samples / rate:.2f} s{', resampled,' * is_mixed} as mel spectrograms"
    )


def _rate_and_length(path):
    try:
        with wave.open(str(path)) as file:
            return file.getframerate(), file.getnframes()
    except (wave.Error, EOFError):  # another format
        import soundfile

        info = soundfile.info(path)
        return info.samplerate, info.frames


def _points(files):
    def read(path):
        """Returns the shape of an array of points, or `None` for a mesh."""
        if path.suffix.lower() == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False).shape
        if path.suffix.lower() == ".xyz":
            with path.open() as file:
                first = file.readline().split()
                return 1 + sum(1 for _ in file), len(first)
        return None

    found = [shape for shape in _readable(files, read) if shape is not None]
    features = collections.Counter(shape[1] - 3 for shape in found if len(shape) == 2)
    num_features = features.most_common()[0][0] if features else 0
    # Files with more points are subsampled.
    num_points = min([_MAX_POINTS, *(shape[0] for shape in found)])
    # Augmentation supports coordinates only.
    changes = {"data.augment": None} if num_features else {}
    return {
        "preprocessor.num_points": num_points,
        "preprocessor.num_features": num_features,
        "model.modality.modality.num_points": num_points,
        "model.modality.modality.num_features": num_features,
        **changes,
    }, f"read in {num_points:,} points of {3 + num_features} numbers"


# For each kind, the file extensions of its preprocessor, and the function that chooses
# sizes.
_KINDS = {
    "images": (
        (
            *(".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg"),
            *(".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
        ),
        _images,
    ),
    "audio": (
        (".aif", ".aiff", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav"),
        _audio,
    ),
    "points": ((".npy", ".off", ".ply", ".xyz"), _points),
}
