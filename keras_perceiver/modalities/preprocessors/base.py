"""The base of all preprocessors: from the bytes of a file to a model's raw input."""

import re
from pathlib import Path

import numpy as np

from keras_perceiver._checks import check_positive, not_defined
from keras_perceiver.modalities.preprocessors.file_rules import (
    IS_FINITE,
    FileRule,
    FileRuleError,
    bad_file,
    first_error,
)
from keras_perceiver.modalities.preprocessors.regular_files import read_bytes


class Preprocessor:
    """Base of all preprocessors: turns the bytes of a file into a model's raw input.

    There are two steps. `decode` turns bytes into an array; it has a host form, and
    where files can be sent to a served model also a graph form, `decode_in_graph`, of
    TensorFlow operations. `convert` turns that array into the raw input (crop, resize,
    value range), in one implementation that both forms share. Folder readers, datasets,
    mock data and the `encoded` signature of an export call the same preprocessor, which
    is saved with its task, so that a model is served on the inputs it was trained on.

    To read another kind of file, make a subclass, register it with
    `keras.saving.register_keras_serializable`, and give it `input_name`, `suffixes`,
    `shape`, `decode`, `random_file` and `get_config`; `convert`, `decode_in_graph`,
    `num_mask_axes`, `use_mask`, `dtype`, `value_range`, `file_kind`, `graph_file_kind`,
    `max_bytes` and `check_modality` where their defaults do not fit.

    Reference:
        [KerasHub's Preprocessor](https://keras.io/keras_hub/api/preprocessing_layers/),
        which a task has in the same place.

    Args:
        **config: Arguments of the subclass.

    Attributes:
        input_name: String, the name of the model's input. Defaults to that of files of
            one modality.
        suffixes: Tuple of lower-case strings, the endings of the file names.
        file_kind: String, what a file must be, in errors, such as `"an image"`.
        graph_file_kind: String, what a file must be to be decoded in a graph, where that
            is less than the host reads. Defaults to `file_kind`.
        max_bytes: Integer. A larger file is an error before it is read.
        shape: Tuple, shape of a raw input. The first size is `None` for any length.
        dtype: String, dtype of a raw input.
        num_mask_axes: Integer, number of axes of a mask. Defaults to those of `shape`
            without the last, or to the only one.
        use_mask: Boolean, whether a mask goes with raw inputs, `False` for padding.
        value_range: Pair of floats, the values that a raw input spans, or `None` where
            it has no fixed range.

    Returns:
        `read` returns the raw input of a file as a NumPy array.

    Raises:
        ValueError: by `read`, if a file is invalid; the error names it.

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

    input_name = None
    suffixes = ()
    file_kind = "of the right kind"
    shape = ()
    dtype = "float32"
    use_mask = False
    value_range = None
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
            suffix: String, the lower-case ending of the file's name, where it is known.

        Returns:
            NumPy array.

        Raises:
            Exception: of any class, if the content cannot be decoded.
        """
        raise not_defined(self, "a preprocessor", "decode", "a NumPy array")

    def decode_in_graph(self, content):
        """Decodes the bytes of a file by TensorFlow operations, as `decode` does.

        Args:
            content: String scalar.

        Returns:
            Pair of a tensor, the array, and a string scalar, the error of the file as
            `FileRule.error` gives it, or `""`. Operations may also fail.
        """
        raise NotImplementedError(
            f"{type(self).__name__} decodes no files in a graph. Leave it out of the "
            "export; clients then send arrays."
        )

    @property
    def has_graph_form(self):
        """Whether files can be decoded in a graph."""
        return type(self).decode_in_graph is not Preprocessor.decode_in_graph

    def convert(self, array):
        """Converts a decoded array to a raw input, without padding.

        Args:
            array: NumPy array or TensorFlow tensor; whatever is done must work on both.

        Returns:
            Array or tensor of `shape`, or shorter along the first axis.
        """
        return array

    def random_file(self, rng, max_length=None):
        """Creates a valid random file, for mock data and checks of exports.

        Args:
            rng: `numpy.random.Generator`.
            max_length: Integer, maximum length of the raw input where `shape[0]` is
                `None`.

        Returns:
            Pair of a string, the suffix, and bytes, the content.
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
            NumPy array of `shape`; the first size is smaller in short files.

        Raises:
            ValueError: if the file is invalid; names it.
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
        except Exception as error:  # of whatever class the library raises
            if isinstance(error, OSError) and error.filename is not None:
                raise  # the file cannot be opened
            reason = error_reason(error)
            raise bad_file(
                path, f"A file must be {self.file_kind}.", f"invalid content ({reason})"
            ) from error

    def read_content(self, content, suffix=""):
        """Returns the raw input of a file's bytes, a NumPy array, without padding."""
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
        """Returns the raw input of a file's bytes as a tensor, and its error.

        Args:
            content: String scalar.

        Returns:
            Pair of a tensor like the array of `read_content` and a string scalar, `""`
            for a valid file.
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
            name: String, the modality's name.
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
                "A preprocessor must make valid inputs of its modality. Received: "
                f"{type(self).__name__} for {name!r}, {', '.join(problems)}. Change the "
                "preprocessor or the modality."
            )

    def other_problems(self, modality):
        """Returns texts on what else of a preprocessor does not fit a modality."""
        return []

    def _set_length(self, name, length, use_mask):
        """Sets whether there is a mask, from a length that is `None` for any."""
        if length is not None:
            check_positive(**{name: length})
        elif use_mask is False:
            raise ValueError(
                f"Files of any length need a mask. Received: {name}=None, "
                f"use_mask=False. Set `{name}`, or leave `use_mask` out."
            )
        self.use_mask = length is None if use_mask is None else use_mask

    @property
    def _shape_rule(self):
        sizes = ", ".join(str(n or "any") for n in self.shape)
        return FileRule(
            f"Files must hold arrays of shape ({sizes}).",
            "shape {}",
            "Convert the file",
        )

    def _length_rules(self, length):
        """Returns pairs of a rule about the length of a raw input, and if it is kept."""
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

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __repr__(self):
        arguments = (f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({', '.join(arguments)})"


def preprocessors_by_name(preprocessor, modalities):
    """Returns the preprocessors of a model's modalities, checked.

    Args:
        preprocessor: `None`, a `Preprocessor`, or dict of these by the modality's name.
            Modalities may be missing from the dict.
        modalities: Dict of modality layers by name.

    Returns:
        Dict from names to preprocessors, in the order of the modalities.

    Raises:
        TypeError: if one is no `Preprocessor`.
        ValueError: if there is no modality of a name, if one preprocessor is given for
            several modalities, or if it does not fit its modality.
    """
    if preprocessor is None:
        return {}
    if not isinstance(preprocessor, dict):
        if len(modalities) > 1:
            raise ValueError(
                "A model of several modalities needs a dict of preprocessors. Received: "
                f"{preprocessor!r} for {list(modalities)}. Name its modality."
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
                f"Preprocessors must have names of modalities, {list(modalities)}. "
                f"Received: {name!r}. Correct the name."
            )
        each.check_modality(name, modalities[name])
    return {name: preprocessor[name] for name in modalities if name in preprocessor}


def padded(arrays, preprocessor, length=None):
    """Pads raw inputs at the end to one batch, with its mask.

    Args:
        arrays: List of arrays, or `None` for a raw input that is missing.
        preprocessor: `Preprocessor` that they are of.
        length: Integer, the length of the batch. Defaults to the preprocessor's, or to
            that of the longest.

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
    """Returns the text of an error without addresses and names of operations."""
    text = re.sub(r" ?<_io\.\w+ object at \w+>", "", str(error))
    text = text.split("}} ")[-1].split(" [Op:")[0]
    return text or type(error).__name__
