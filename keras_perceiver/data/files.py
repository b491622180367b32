"""What one file holds: a reader for each kind, that makes one array of one file."""

import abc
import contextlib
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_perceiver._checks import check_positive


class Files(abc.ABC):
    """Base of the readers: turns the file of one example into one array.

    To read another kind of file, make a subclass with these attributes and `read`.

    Attributes:
        input_name: String, the name of the model's input.
        suffixes: Tuple of lower-case strings, the endings of the file names.
        shape: Tuple, shape of an array. The first size is `None` for any length.
        num_mask_axes: Integer, how many of these axes a mask has: those without
            channels.
        use_mask: Boolean, whether a mask goes with the arrays, `False` for padding.
    """

    input_name = None
    suffixes = ()
    num_mask_axes = None
    use_mask = False

    @abc.abstractmethod
    def read(self, path):
        """Returns the float32 array of a file.

        Args:
            path: Path of the file.

        Raises:
            ValueError: if the file does not hold what the reader is for; names it.
        """

    def _set_length(self, name, length, use_mask):
        """Keeps the length of the arrays, `None` for any, and whether there is a mask."""
        if length is not None:
            check_positive(**{name: length})
        elif use_mask is False:
            raise ValueError(
                f"Files of any length need a mask. Received: {name}=None, "
                f"use_mask=False. Set `{name}`, or leave `use_mask` out."
            )
        self.use_mask = length is None if use_mask is None else use_mask

    def _check_length(self, path, name, length):
        """Raises `ValueError` for an array that is empty or would need padding."""
        if length == 0:
            raise bad_file(path, "A file must not be empty.", f"{name}=0")
        wanted = self.shape[0]
        if wanted is not None and length < wanted and not self.use_mask:
            raise bad_file(
                path,
                f"Without a mask, files must not be shorter than `{name}`.",
                f"{name}={length} where {wanted} are asked",
                f"Set `use_mask=True` or a smaller `{name}`",
            )


class ImageFiles(Files):
    """Reads images (PNG, JPEG, BMP, first frame of a GIF), scaled from 0..255 to -1..1.

    Images of another size are resized, with antialiasing.

    Args:
        shape: Tuple `(height, width, channels)`, in pixels. An image with other
            channels is an error: grey among colours is more often a mistake.
        crop_to_aspect_ratio: Boolean. `True`: cuts an image of another aspect ratio at
            both ends before resizing. `False`: resizing distorts it.

    Raises:
        ValueError: if `shape` is not three positive integers.
    """

    input_name = "image"
    # Those of `keras.utils.image_dataset_from_directory`, which is not used because its
    # errors name no file, and it makes all images of the channels that it is asked for.
    suffixes = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
    num_mask_axes = 2

    def __init__(self, shape, crop_to_aspect_ratio=False):
        self.shape = _checked_shape(shape, ("height", "width", "channels"))
        self.crop_to_aspect_ratio = crop_to_aspect_ratio

    def read(self, path):
        with _decoding(path, "an image"), tf.device("CPU"):
            content = Path(path).read_bytes()
            image = tf.io.decode_image(content, expand_animations=False)
        *size, channels = image.shape
        if channels != self.shape[-1]:
            raise bad_file(
                path,
                f"Images must have {self.shape[-1]} channels, as `shape` says.",
                f"channels={channels}",
                "Convert the file",
            )
        height, width, _ = self.shape
        with tf.device("CPU"):  # not one small image at a time on an accelerator
            if self.crop_to_aspect_ratio:
                rows = min(size[0], round(size[1] * height / width)) or 1
                columns = min(size[1], round(size[0] * width / height)) or 1
                top, left = (size[0] - rows) // 2, (size[1] - columns) // 2
                image = image[top : top + rows, left : left + columns]
            if image.shape != self.shape:  # it would cost more than all else
                image = tf.image.resize(image, (height, width), antialias=True)
        return image.numpy().astype("float32") / 127.5 - 1


class AudioFiles(Files):
    """Reads 16-bit mono WAV files as waveforms in -1..1.

    Args:
        sample_rate: Integer, in hertz. A file of another rate is an error.
        num_samples: Integer. Longer files are cut at the end, shorter ones padded at
            the end if there is a mask, and an error if not. `None`: files of any length.
        use_mask: Boolean, whether a mask goes with the waveforms. Defaults to `True`
            for files of any length, else to `False`.

    Raises:
        ValueError: if a number is not positive, or if files of any length shall have no
            mask.
    """

    input_name = "audio"
    suffixes = (".wav",)
    num_mask_axes = 1

    def __init__(self, sample_rate, num_samples=None, use_mask=None):
        check_positive(sample_rate=sample_rate)
        self._set_length("num_samples", num_samples, use_mask)
        self.sample_rate = sample_rate
        self.shape = (num_samples,)

    def read(self, path):
        # The operation in `keras.utils.audio_dataset_from_directory`, which itself takes
        # any sample rate for the one that is meant, and names no file in errors.
        with _decoding(path, "a 16-bit WAV"), tf.device("CPU"):
            audio, sample_rate = tf.audio.decode_wav(Path(path).read_bytes())
        if sample_rate != self.sample_rate:
            raise bad_file(
                path,
                f"Files must have `sample_rate={self.sample_rate}` hertz.",
                f"sample_rate={int(sample_rate)}",
                "Resample the file",
            )
        if audio.shape[1] != 1:
            raise bad_file(
                path,
                "Files must be mono.",
                f"{audio.shape[1]} channels",
                "Mix them down to one",
            )
        self._check_length(path, "num_samples", len(audio))
        return audio.numpy()[: self.shape[0], 0]


class PointFiles(Files):
    """Reads point clouds: NumPy arrays, text, and meshes sampled on their surface.

    Files: `.npy` of shape `(points, 3 + num_features)`, `.xyz` with one point in a line,
    numbers separated by spaces, and with `pip install "keras_perceiver[points]"` `.off`
    and `.ply`. A mesh gives `num_points` random points of its surface, the same ones
    each time; one without faces gives its vertices.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 4.3: zero mean,
        scaled to the unit cube.

    Args:
        num_points: Integer. Of files with more points a random part is taken, the same
            one each time; those with fewer are padded at the end if there is a mask,
            and an error if not. `None`: files of any length, and no meshes.
        num_features: Integer, numbers that follow the three coordinates of each point.
        use_unit_cube: Boolean. `True`: moves the points to zero mean and scales them,
            all axes alike, to fill -1..1. `False`: leaves them in their units.
        use_mask: Boolean, whether a mask goes with the points. Defaults to `True` for
            files of any length, else to `False`.
        seed: Integer, seed of the random points.

    Raises:
        ValueError: if a number is negative, or if files of any length shall have no
            mask.
    """

    input_name = "points"
    suffixes = (".npy", ".off", ".ply", ".xyz")
    num_mask_axes = 1

    def __init__(
        self,
        num_points=None,
        num_features=0,
        use_unit_cube=True,
        use_mask=None,
        seed=0,
    ):
        self._set_length("num_points", num_points, use_mask)
        if num_features < 0:
            raise ValueError(
                "`num_features` must not be negative. Received: "
                f"num_features={num_features}. Set it to 0 for coordinates alone."
            )
        self.shape = (num_points, 3 + num_features)
        self.use_unit_cube = use_unit_cube
        self.seed = seed

    def read(self, path):
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix == ".npy":
            points = _load_array(path)
        elif suffix == ".xyz":
            with _decoding(path, "a text of numbers"):
                rows = [line.split() for line in path.read_text().splitlines()]
                points = np.array([row for row in rows if row], dtype="float64")
        else:
            points = self._read_mesh(path)
        if points.size == 0:
            points = points.reshape(0, self.shape[1])
        if points.ndim != 2 or points.shape[1] != self.shape[1]:
            raise bad_file(
                path,
                f"Points must have shape `(points, {self.shape[1]})`: three coordinates "
                f"and {self.shape[1] - 3} features.",
                f"shape {points.shape}",
                "Set `num_features`",
            )
        self._check_length(path, "num_points", len(points))
        num_points = self.shape[0]
        if num_points is not None and len(points) > num_points:
            rng = np.random.default_rng(self.seed)
            points = points[rng.choice(len(points), num_points, replace=False)]
        points = points.astype("float64")
        with np.errstate(over="ignore", invalid="ignore"):
            if self.use_unit_cube:
                xyz = points[:, :3] - points[:, :3].mean(axis=0)
                # All points in one place stay there.
                points[:, :3] = xyz / (np.abs(xyz).max() or 1)
            points = points.astype("float32")
        # Here, so that what overflows is found too.
        if not np.isfinite(points).all():
            raise _not_finite(path)
        return points

    def _read_mesh(self, path):
        try:
            import trimesh
        except ImportError as error:
            raise ImportError(
                f"Meshes are read with trimesh, which is not installed ({path}). "
                'Install it with `pip install "keras_perceiver[points]"`.'
            ) from error

        with _decoding(path, "a mesh"):
            # `process` would drop what is not finite without a word.
            mesh = trimesh.load(path, process=False)
            vertices = np.asarray(mesh.vertices)
            faces = getattr(mesh, "faces", ())
        if not np.isfinite(vertices).all():
            raise _not_finite(path)
        if not len(faces):
            return vertices
        if self.shape[0] is None:
            raise bad_file(
                path,
                "Meshes are sampled on their surface in `num_points` points.",
                "num_points=None",
                "Set `num_points`",
            )
        points, _ = trimesh.sample.sample_surface(mesh, self.shape[0], seed=self.seed)
        return np.asarray(points)


class VideoFiles(Files):
    """Reads videos as arrays of frames, scaled from 0..255 to -1..1.

    Files: `.npy`, uint8, of shape `(frames, height, width, channels)`.

    Args:
        shape: Tuple `(frames, height, width, channels)`. Another one is an error.

    Raises:
        ValueError: if `shape` is not four positive integers.
    """

    input_name = "video"
    suffixes = (".npy",)
    num_mask_axes = 3

    def __init__(self, shape):
        self.shape = _checked_shape(shape, ("frames", "height", "width", "channels"))

    def read(self, path):
        video = _load_array(path)
        if video.shape != self.shape or video.dtype != "uint8":
            raise bad_file(
                path,
                f"Videos must be uint8 arrays of shape {self.shape}.",
                f"{video.dtype} of shape {video.shape}",
                "Convert the file, or set `shape`",
            )
        return video.astype("float32") / 127.5 - 1


def bad_file(path, rule, received, fix="Repair or remove the file"):
    """Returns the `ValueError` of a file that cannot be used."""
    return ValueError(
        f"{rule} Received: {received} in {path}. {fix}, or leave out what is bad with "
        "`skip_bad_files=True`."
    )


def _not_finite(path):
    return bad_file(
        path, "Points must be finite.", "a NaN or infinite number", "Remove it"
    )


@contextlib.contextmanager
def _decoding(path, kind):
    """Turns the errors of a decoder, of whatever class, into one that names the file."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        # TensorFlow puts names of its operation around the reason.
        reason = str(error).split("}} ")[-1].split(" [Op:")[0]
        raise bad_file(
            path, f"A file must be {kind}.", f"what cannot be read ({reason})"
        ) from error


def _load_array(path):
    with _decoding(path, "a NumPy array of numbers"):
        array = np.load(path, allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf":
            raise TypeError(f"{getattr(array, 'dtype', 'several arrays')}")
    return array


def _checked_shape(shape, names):
    shape = tuple(shape)
    if len(shape) != len(names):
        raise ValueError(
            f"`shape` must be ({', '.join(names)}). Received: shape={shape}. "
            f"Give {len(names)} sizes."
        )
    check_positive(**dict(zip(names, shape, strict=True)))
    return shape
