"""The base class of preprocessors: from the bytes of a file to a raw input."""

import re
from pathlib import Path

import numpy as np

from keras_perceiver._checks import check_positive, not_defined
from keras_perceiver.layers.arguments import ArgumentsConfig
from keras_perceiver.modalities.preprocessors.file_rules import (
    IS_FINITE,
    FileRule,
    FileRuleError,
    bad_file,
    first_error,
)
from keras_perceiver.modalities.preprocessors.regular_files import read_bytes


class Preprocessor(ArgumentsConfig):
    """Base class of preprocessors, which turn files into the raw inputs of a model.

    There are two steps. `decode` turns the bytes of a file into an array. If files can be
    sent to a served model, there is also `decode_in_graph`, which does the same by
    TensorFlow operations. `convert` turns that array into the raw input (crop, resize,
    value range) in both cases. Folder readers, datasets, mock data and the `encoded`
    signature of an export use the same preprocessor, which is saved with the task, so
    that serving and training preprocess files alike.

    To read another kind of file, create a subclass, register it with
    `keras.saving.register_keras_serializable`, and define `input_name`, `suffixes`,
    `shape`, `decode`, `random_file` and `get_config`. Override `convert`,
    `decode_in_graph`, `num_mask_axes`, `use_mask`, `dtype`, `value_range`, `file_kind`,
    `graph_file_kind`, `max_bytes` and `check_modality` if their defaults do not apply.

    Reference:
        [KerasHub's Preprocessor](https://keras.io/keras_hub/api/preprocessing_layers/),
        which is an attribute of a task as well.

    Attributes:
        input_name: String, the name of the model's input, if there is one modality.
        suffixes: Tuple of lower-case strings, the file extensions.
        file_kind: String, description of a valid file in errors, such as `"an image"`.
        graph_file_kind: String, description of a file that can be decoded in a graph.
            Defaults to `file_kind`.
        max_bytes: Integer, maximum size of a file. It is checked before a file is read.
        shape: Tuple, shape of a raw input. The first size is `None` for any length.
        dtype: String, dtype of a raw input.
        num_mask_axes: Integer, number of axes of a mask. Defaults to all axes of `shape`
            but the last, and at least one.
        use_mask: Boolean, whether raw inputs have a mask, `False` for padding.
        value_range: Pair of floats, the range of values of a raw input, or `None` if it
            has no fixed range.

    Returns:
        `read` returns the raw input of a file as a NumPy array.

    Raises:
        ValueError: in `read`, if a file is invalid. The error names it.

    Example:

    >>> import pathlib, tempfile
    >>> class Readings(Preprocessor):
    ...     input_name, suffixes, shape = "readings", (".csv",), (None, 3)
    ...     use_mask = True
    ...
    ...     def decode(self, content, suffix=""):
    ...         lines = content.decode().splitlines()
    ...         return np.loadtxt(lines, "float32", delimiter=",", ndmin=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "a.csv")
    ...     _ = path.write_text("1,2,3\\n4,5,6\\n")
    ...     Readings().read(path).shape
    (2, 3)
    """

    input_name: str | None = None
    suffixes: tuple[str, ...] = ()
    file_kind = "of the right kind"
    shape: tuple[int | None, ...] = ()
    dtype = "float32"
    use_mask = False
    value_range: tuple[float, float] | None = None
    max_bytes = 2**31

    @property
    def num_mask_axes(self):
        return max(len(self.shape) - 1, 1)

    @property
    def graph_file_kind(self):
        return self.file_kind

    def decode(self, content, suffix=""):
        """Decodes the bytes of a file.

        Args:
            content: Bytes.
            suffix: String, the lower-case file extension, if it is known.

        Returns:
            NumPy array.

        Raises:
            Exception: of any class, if the content cannot be decoded.
        """
        raise not_defined(self, "a preprocessor", "decode", "a NumPy array")

    def decode_in_graph(self, content):
        """Decodes the bytes of a file as `decode` does, by TensorFlow operations.

        Args:
            content: String scalar.

        Returns:
            Pair of the array as a tensor, and the error of the file as a string scalar,
            see `FileRule.error`, `""` if it is valid. Operations may also fail.
        """
        raise NotImplementedError(
            f"{type(self).__name__} cannot decode files in a graph. Remove it from the "
            "export, so that clients send arrays."
        )

    @property
    def has_graph_form(self):
        """Boolean, whether files can be decoded in a graph."""
        return type(self).decode_in_graph is not Preprocessor.decode_in_graph

    def convert(self, array):
        """Converts a decoded array to a raw input, without padding.

        Args:
            array: NumPy array or TensorFlow tensor. Implementations must support both.

        Returns:
            Array or tensor of `shape`, or shorter along the first axis.
        """
        return array

    def random_file(self, rng, max_length=None):
        """Creates a valid random file, for mock data and checks of exports.

        Args:
            rng: `numpy.random.Generator`.
            max_length: Integer, maximum length of the raw input if `shape[0]` is
                `None`.

        Returns:
            Pair of the suffix as a string and the content as bytes.
        """
        raise not_defined(
            self, "a preprocessor", "random_file", "a suffix and bytes for mock data"
        )

    def write_random(self, path, rng, max_length=None):
        """Writes a valid random file.

        Args:
            path: Path of the file, without a suffix.
            rng: `numpy.random.Generator`.
            max_length: Integer, see `random_file`.

        Returns:
            `pathlib.Path` of the file.
        """
        suffix, content = self.random_file(rng, max_length)
        path = Path(f"{path}{suffix}")
        path.write_bytes(content)
        return path

    def read(self, path):
        """Returns the raw input of a file, without padding.

        Args:
            path: Path of the file.

        Returns:
            NumPy array of `shape`, or shorter along the first axis.

        Raises:
            ValueError: if the file is invalid. The error names it.
            OSError: if it cannot be opened, such as `FileNotFoundError`.
        """
        path = Path(path)
        try:
            content = read_bytes(path, self.max_bytes)
            return self.read_content(content, path.suffix.lower())
        except FileRuleError as error:
            raise bad_file(path, error.rule, error.received, error.fix) from error
        except ImportError:
            raise  # a library is missing
        except Exception as error:  # libraries raise various classes
            if isinstance(error, OSError) and error.filename is not None:
                raise  # the file cannot be opened
            reason = error_reason(error)
            raise bad_file(
                path, f"A file must be {self.file_kind}.", f"invalid content ({reason})"
            ) from error

    def read_content(self, content, suffix=""):
        """Returns the raw input of a file's bytes as a NumPy array, without padding."""
        array = np.asarray(self.convert(self.decode(content, suffix))).astype(
            self.dtype
        )
        self._shape_rule.check(array.shape[1:] == self.shape[1:], array.shape)
        for rule, is_kept in self._length_rules(len(array)):
            rule.check(is_kept, len(array))
        if np.issubdtype(array.dtype, np.floating):
            IS_FINITE.check(np.isfinite(array).all())
        return array

    def read_content_in_graph(self, content):
        """Returns the raw input of a file's bytes as a tensor, and the error of the file.

        Args:
            content: String scalar.

        Returns:
            Pair of a tensor as `read_content` returns it, and a string scalar, `""` if
            the file is valid.
        """
        import tensorflow as tf

        array, error = self.decode_in_graph(content)
        is_valid = tf.equal(error, "")
        blank = tf.zeros([n or 0 for n in self.shape], self.dtype)
        array = tf.cond(
            is_valid,
            lambda: tf.cast(self.convert(array), self.dtype),
            lambda: blank,
        )
        array = tf.ensure_shape(array, (None, *self.shape[1:]))
        length = tf.shape(array)[0]
        errors = [
            rule.error(is_kept | ~is_valid, length)
            for rule, is_kept in self._length_rules(length)
        ]
        return array, first_error(error, *errors)

    def check_modality(self, name, modality):
        """Raises `ValueError` unless raw inputs are valid for a modality.

        Args:
            name: String, the name of the modality.
            modality: Modality layer.
        """
        problems = []
        if not modality.is_valid_shape(self.shape):
            problems.append(f"shape {self.shape} for {tuple(modality.input_shape)}")
        if self.dtype != modality.input_dtype:
            problems.append(f"dtype {self.dtype} for {modality.input_dtype}")
        if self.use_mask and not modality.use_mask:
            problems.append("a mask where the modality has `use_mask=False`")
        problems += self.other_problems(modality)
        if problems:
            raise ValueError(
                "A preprocessor must return valid inputs of its modality. Received: "
                f"{type(self).__name__} for {name!r}, {', '.join(problems)}. Change the "
                "preprocessor or the modality."
            )

    def other_problems(self, modality):
        """Returns descriptions of other mismatches of preprocessor and modality."""
        return []

    def _set_length(self, name, length, use_mask):
        """Sets `use_mask`, given a length that is `None` for any."""
        if length is not None:
            check_positive(**{name: length})
        elif use_mask is False:
            raise ValueError(
                f"Files of any length need a mask. Received: {name}=None, "
                f"use_mask=False. Set `{name}`, or remove `use_mask`."
            )
        self.use_mask = length is None if use_mask is None else use_mask

    @property
    def _shape_rule(self):
        sizes = ", ".join(str(n or "any") for n in self.shape)
        return FileRule(
            f"Files must contain arrays of shape ({sizes}).",
            "shape {}",
            "Convert the file",
        )

    def _length_rules(self, length):
        """Returns pairs of a rule about the length of a raw input, and if it is met."""
        rules = [
            (
                FileRule("A file must not be empty.", "length {}", "Remove the file"),
                length > 0,
            )
        ]
        if self.shape[0] is not None and not self.use_mask:
            rules.append(
                (
                    FileRule(
                        "Without a mask, files must not be shorter than "
                        f"{self.shape[0]}.",
                        "length {}",
                        "Set `use_mask=True` or a smaller length",
                    ),
                    length >= self.shape[0],
                )
            )
        return rules

    def __repr__(self):
        arguments = (f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({', '.join(arguments)})"


def preprocessors_by_name(preprocessor, modalities):
    """Returns the preprocessors of a model's modalities, checked.

    Args:
        preprocessor: `Preprocessor`, dict of preprocessors by modality name, in which
            modalities may be missing, or `None`.
        modalities: Dict of modality layers by name.

    Returns:
        Dict from names to preprocessors, in the order of the modalities.

    Raises:
        TypeError: if one is not a `Preprocessor`.
        ValueError: if there is no modality with a name, if one preprocessor is passed for
            several modalities, or if a preprocessor does not match its modality.
    """
    if preprocessor is None:
        return {}
    if not isinstance(preprocessor, dict):
        if len(modalities) > 1:
            raise ValueError(
                "A model of several modalities needs a dict of preprocessors. Received: "
                f"{preprocessor!r} for {list(modalities)}. Pass a dict by modality name."
            )
        preprocessor = dict.fromkeys(modalities, preprocessor)
    for name, each in preprocessor.items():
        if not isinstance(each, Preprocessor):
            raise TypeError(
                "`preprocessor` must be a `Preprocessor` or a dict of them. Received: "
                f"{each!r} of type {type(each).__name__} for {name!r}. Pass, for "
                "example, `ImagePreprocessor((height, width, channels))`."
            )
        if name not in modalities:
            raise ValueError(
                f"Preprocessors must be for one of the modalities {list(modalities)}. "
                f"Received: {name!r}. Correct the name."
            )
        each.check_modality(name, modalities[name])
    return {name: preprocessor[name] for name in modalities if name in preprocessor}


def padded(arrays, preprocessor, length=None):
    """Pads raw inputs at the end, and returns them as a batch with its mask.

    Args:
        arrays: List of arrays, with `None` for raw inputs that are missing.
        preprocessor: `Preprocessor` of the raw inputs.
        length: Integer, the length of the batch. Defaults to that of the preprocessor, or
            of the longest array.

    Returns:
        Pair of the batch and its boolean mask, `False` for padding.
    """
    if length is None:
        length = preprocessor.shape[0] or max(map(len, arrays))
    shape = (len(arrays), length, *preprocessor.shape[1:])
    batch = np.zeros(shape, preprocessor.dtype)
    mask = np.zeros(shape[: 1 + preprocessor.num_mask_axes], "bool")
    for row, array in enumerate(arrays):
        if array is not None:
            batch[row, : len(array)], mask[row, : len(array)] = array, True
    return batch, mask


def error_reason(error):
    """Returns the message of an error without addresses and names of operations."""
    text = re.sub(r" ?<_io\.\w+ object at \w+>", "", str(error))
    text = text.split("}} ")[-1].split(" [Op:")[0]
    return text or type(error).__name__
