"""Folders of labelled files as `tf.data` pipelines: `<folder>/<class>/<file>`."""

import dataclasses
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_perceiver._checks import check_positive
from keras_perceiver.data.epochs import another_every_time, epoch_order
from keras_perceiver.modalities.preprocessors import Preprocessor
from keras_perceiver.modalities.preprocessors.base import padded

# Examples read at once by the checking pass; more of them than this get a progress bar.
_CHECKED_AT_ONCE = 512


def read_folder(
    folder,
    preprocessor,
    batch_size,
    class_names=None,
    shuffle=True,
    seed=0,
    drop_remainder=False,
    num_buckets=8,
    allow_missing=False,
    skip_bad_files=False,
    check_files=True,
    use_cache=False,
):
    """Reads labelled files, one or several modalities each, as a `tf.data.Dataset`.

    Files lie in `<folder>/<class>/<file>`. Several modalities are joined by class and
    by the file's name without its ending: `dog/0001.wav` belongs to `dog/0001.png`.

    Where files have any length, a batch is padded at the end. To pad little, examples
    of about one length come together, in `num_buckets` groups of as many examples, and
    a batch is as long as the longest of its group: a compiled model sees no more than
    `num_buckets` shapes. Without `shuffle` examples keep their order instead.

    Args:
        folder: Path, or dict from modality name to path where each has its own.
        preprocessor: Preprocessor of the files, such as `ImagePreprocessor((32, 32, 3))`,
            or dict of preprocessors by the modality's name.
        batch_size: Integer, examples per batch.
        class_names: Sequence of strings, the classes in the order of the labels, such
            as the `class_names` of the training folder for a test folder, which may
            lack some. Defaults to the names of the class folders, sorted.
        shuffle: Boolean, whether examples come in a new order every epoch.
        seed: Integer, seed of the order.
        drop_remainder: Boolean, whether to leave out batches that are not full (a
            different subset each epoch).
        num_buckets: Integer, most groups by length.
        allow_missing: Boolean. `True`: an example may lack modalities; all get masks,
            `False` everywhere for what is missing. `False`: that is an error.
        skip_bad_files: Boolean. `True`: leaves out examples with files that cannot be
            used, with a warning that counts them. `False`: the first is an error.
        check_files: Boolean, whether to read all files once before anything is
            returned. `False`: a bad file is an error when it is met.
        use_cache: Boolean, whether to keep all arrays in memory.

    Returns:
        `LabelledFolder`. The elements of its dataset are `(inputs, labels)`: float32
        and int32. `inputs` is a tensor, or, if `preprocessor` is a dict or there is a
        mask, a dict with a tensor `"<name>"` and, for preprocessors with a mask,
        booleans `"<name>_mask"` of the shape without channels, `False` for padding.

    Raises:
        TypeError: if there is something else than preprocessors.
        FileNotFoundError: if a folder is missing.
        ValueError: if there is nothing to read, if a class is not in `class_names`, if
            a file cannot be used (named in the error), or if the arguments do not fit
            together. Without `check_files`, TensorFlow's `InvalidArgumentError` in
            place of the latter's `ValueError`, with the same text.

    Example:

    >>> import tempfile, pathlib
    >>> from keras_perceiver import PointCloudPreprocessor
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("chair", "lamp"):
    ...         pathlib.Path(folder, name).mkdir()
    ...         np.save(f"{folder}/{name}/0.npy", np.random.normal(size=(50, 3)))
    ...     train = read_folder(folder, PointCloudPreprocessor(50), batch_size=2)
    ...     points, labels = next(iter(train.dataset))
    >>> train.class_names, tuple(points.shape)
    (('chair', 'lamp'), (2, 50, 3))
    """
    is_dict = isinstance(preprocessor, dict)
    preprocessors = (
        preprocessor
        if is_dict
        else {getattr(preprocessor, "input_name", None): preprocessor}
    )
    for name, each in preprocessors.items():
        if not isinstance(each, Preprocessor):
            raise TypeError(
                "`preprocessor` must be a `Preprocessor` or a dict of them. Received: "
                f"{each!r} of type {type(each).__name__} for {name!r}. "
                "Pass, for example, `ImagePreprocessor((height, width, channels))`."
            )
    folders = (
        folder if isinstance(folder, dict) else dict.fromkeys(preprocessors, folder)
    )
    if folders.keys() != preprocessors.keys():
        raise ValueError(
            "`folder` and `preprocessor` must have the same modalities. Received: "
            f"{sorted(folders)} and {sorted(preprocessors)}. Give each preprocessor its "
            "folder."
        )
    check_positive(batch_size=batch_size, num_buckets=num_buckets)
    lengths = [each.shape[0] for each in preprocessors.values()]
    is_ragged = None in lengths
    if not check_files and (skip_bad_files or is_ragged):
        raise ValueError(
            "Bad files are found, and files of any length measured, by checking. "
            f"Received: check_files=False, skip_bad_files={skip_bad_files}, "
            f"lengths {lengths}. "
            "Set `check_files=True`, or else a length and `skip_bad_files=False`."
        )

    skipped = []

    def report(path, error):
        if not skip_bad_files:
            raise error
        skipped.append((path, str(error)))

    pipeline = _Pipeline(
        preprocessors=preprocessors,
        masked=tuple(
            n for n, p in preprocessors.items() if allow_missing or p.use_mask
        ),
        is_dict=is_dict,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        drop_remainder=drop_remainder,
        num_buckets=num_buckets,
        cache={} if use_cache else None,
    )
    folders = {name: Path(path) for name, path in folders.items()}
    class_names = _class_names(folders, class_names)
    examples = _find(folders, preprocessors, class_names, allow_missing, report)
    if check_files:
        examples = _check(examples, pipeline, report)
    if not examples:
        raise ValueError(
            "There must be a file to read. Received: none that can be used in "
            f"{[str(path) for path in folders.values()]}, {len(skipped)} left out. "
            f"The first: {skipped[0][1]}"
        )
    if skipped:
        warnings.warn(
            f"Left out {len(skipped)} bad files, read {len(examples)} examples. "
            f"`skipped` lists them, the first: {skipped[0][0]}",
            stacklevel=2,
        )
    return _labelled(examples, class_names, tuple(skipped), pipeline)


@dataclasses.dataclass(frozen=True)
class LabelledFolder:
    """What `read_folder` returns.

    Attributes:
        dataset: Batched `tf.data.Dataset` of `(inputs, labels)`.
        class_names: Tuple of strings; label 0 is the first.
        paths: Tuple, for every example its path, or, if it was read as a dict of
            modalities, a dict from modality name to path, without those it lacks. Without
            `shuffle` in the order of the dataset.
        skipped: Tuple of pairs, path and reason, of what was left out.
    """

    dataset: tf.data.Dataset
    class_names: tuple
    paths: tuple
    skipped: tuple
    _examples: list = dataclasses.field(repr=False)
    _pipeline: object = dataclasses.field(repr=False)

    def epoch(self, number, num_done=0):
        """Returns one pass over the examples, in an order that follows from its number.

        Args:
            number: Int64 scalar.
            num_done: Int64 scalar, batches to leave out at the beginning. No file of
                theirs is read.

        Returns:
            `tf.data.Dataset` like `dataset`.
        """
        return self._pipeline.epoch(self._examples, number, num_done)

    def split(self, validation_fraction=0.2, group=None):
        """Splits the examples of every class into training and validation.

        The same files give the same split, so that settings can be chosen without the
        test data. A class of one group is in training only.

        Args:
            validation_fraction: Float in (0, 1), the part of each class.
            group: Callable that takes a file's name without its ending and returns what
                it belongs to, such as a speaker; all of that goes to one side. Defaults
                to each example for itself.

        Returns:
            Pair of `LabelledFolder`. The second is in order and has every batch.

        Raises:
            ValueError: if the fraction is not in (0, 1), or if every class is one group.
        """
        if not 0 < validation_fraction < 1:
            raise ValueError(
                "`validation_fraction` must be in (0, 1). Received: "
                f"validation_fraction={validation_fraction}. Set it to 0.2 for a fifth."
            )
        train, validation = _split(
            self._examples, validation_fraction, group or (lambda stem: stem)
        )
        if not validation:
            raise ValueError(
                "A split needs a class of two groups or more. Received: one group in "
                f"each of {len(self.class_names)} classes. Make the groups smaller."
            )
        in_order = dataclasses.replace(
            self._pipeline, shuffle=False, drop_remainder=False
        )
        return (
            _labelled(train, self.class_names, self.skipped, self._pipeline),
            _labelled(validation, self.class_names, self.skipped, in_order),
        )


class _Example(NamedTuple):
    label: int
    stem: str
    paths: dict  # from modality to path, without those that are missing
    lengths: dict  # from modality to length, as far as it was read


def _labelled(examples, class_names, skipped, pipeline):
    paths = [example.paths for example in examples]
    if not pipeline.is_dict:
        paths = [path for each in paths for path in each.values()]
    return LabelledFolder(
        pipeline.dataset(examples),
        class_names,
        tuple(paths),
        skipped,
        examples,
        pipeline,
    )


def _class_names(folders, class_names):
    found = set()
    for folder in folders.values():
        if not folder.is_dir():
            raise FileNotFoundError(
                "`folder` must be a folder of class folders. Received: "
                f"{str(folder)!r}, which is no folder. Correct the path."
            )
        found |= {path.name for path in _visible(folder) if path.is_dir()}
    if not found:
        raise ValueError(
            "Files must lie in `<folder>/<class>/<file>`. Received: "
            f"{[str(folder) for folder in folders.values()]} without a folder in it. "
            "Make a folder for each class."
        )
    if class_names is None:
        return tuple(sorted(found))
    unknown = sorted(found - set(class_names))
    if unknown:
        raise ValueError(
            "Every class folder must be one of `class_names`. Received: folders "
            f"{unknown}, class_names={list(class_names)}. Remove or rename the folders."
        )
    return tuple(class_names)


def _visible(folder):
    """Returns what is in a folder, sorted, without hidden files."""
    return sorted(p for p in folder.iterdir() if not p.name.startswith("."))


def _find(folders, preprocessors, class_names, allow_missing, report):
    """Returns the examples, sorted by class and name; reports what has no files."""
    examples = []
    for label, class_name in enumerate(class_names):
        stems = {}
        class_folders = {n: f / class_name for n, f in folders.items()}
        class_folders = {n: f for n, f in class_folders.items() if f.is_dir()}
        for name, class_folder in class_folders.items():
            for path in _visible(class_folder):
                if path.suffix.lower() not in preprocessors[name].suffixes:
                    continue
                # Nothing is joined by the name of a lone modality.
                stem = path.stem if len(preprocessors) > 1 else path.name
                paths = stems.setdefault(stem, {})
                if name in paths:
                    report(path, _twice(path, paths[name]))
                else:
                    paths[name] = path
        if class_folders and not stems:
            folder = next(iter(class_folders.values()))
            report(folder, _empty_class(folder, preprocessors))
        for stem, paths in sorted(stems.items()):
            if len(paths) < len(preprocessors) and not allow_missing:
                path = next(iter(paths.values()))
                missing = sorted(preprocessors.keys() - paths.keys())
                report(path, _incomplete(path, missing))
            else:
                examples.append(_Example(label, Path(stem).stem, paths, {}))
    return examples


def _twice(path, other):
    return ValueError(
        "An example must have one file of each modality. Received: "
        f"{path} beside {other.name}. Remove or rename one."
    )


def _empty_class(folder, preprocessors):
    suffixes = sorted({suffix for p in preprocessors.values() for suffix in p.suffixes})
    return ValueError(
        f"A class folder must hold files. Received: none of {suffixes} in {folder}. "
        "Remove the folder, or leave out what is bad with `skip_bad_files=True`."
    )


def _incomplete(path, missing):
    return ValueError(
        f"An example must have a file of every modality. Received: {path} without "
        f"{missing}. Add files of the same name, or set `allow_missing=True`."
    )


def _check(examples, pipeline, report):
    """Reads every file once; returns the examples that are good, with their lengths."""
    good = []
    progress = None
    if len(examples) > _CHECKED_AT_ONCE:
        progress = keras.utils.Progbar(len(examples), unit_name="checked file")
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(examples), _CHECKED_AT_ONCE):
            some = examples[start : start + _CHECKED_AT_ONCE]
            for example, result in zip(
                some, pool.map(pipeline.lengths, some), strict=True
            ):
                if isinstance(result, dict):
                    good.append(example._replace(lengths=result))
                else:
                    report(*result)
            if progress is not None:
                progress.update(start + len(some))
    return good


def _split(examples, validation_fraction, group):
    """Returns two lists of examples, each in the order of the first."""
    classes = {}
    for index, example in enumerate(examples):
        groups = classes.setdefault(example.label, {})
        groups.setdefault(group(example.stem), []).append(index)
    held_out = set()
    for groups in classes.values():
        wanted = validation_fraction * sum(map(len, groups.values()))
        rng = np.random.default_rng(0)  # one split, whatever the seed of a run
        num_held_out = 0
        members = list(groups.values())
        # The last group stays in training.
        for choice in rng.permutation(len(members))[:-1]:
            # At least one, then while that comes closer.
            if num_held_out and num_held_out + len(members[choice]) / 2 > wanted:
                break
            held_out.update(members[choice])
            num_held_out += len(members[choice])
    return (
        [e for index, e in enumerate(examples) if index not in held_out],
        [e for index, e in enumerate(examples) if index in held_out],
    )


@dataclasses.dataclass(frozen=True)
class _Pipeline:
    """How examples become batches."""

    preprocessors: dict
    masked: tuple
    is_dict: bool
    batch_size: int
    shuffle: bool
    seed: int
    drop_remainder: bool
    num_buckets: int
    cache: dict | None

    def lengths(self, example):
        """Returns the length of each array, or the path and error of a bad file."""
        lengths = {}
        for name, path in example.paths.items():
            try:
                lengths[name] = len(self._read(name, path))
            except ValueError as error:
                return path, error
        return lengths

    def _read(self, name, path):
        if self.cache is None:
            return self.preprocessors[name].read(path)
        key = name, path
        if key not in self.cache:
            self.cache[key] = self.preprocessors[name].read(path)
        return self.cache[key]

    def dataset(self, examples):
        """Returns the examples, shuffled another way whenever they are read."""
        epoch = self.epoch(examples, tf.constant(0, "int64"))
        if not self.shuffle:
            return epoch
        return another_every_time(
            lambda number: self.epoch(examples, number),
            self.seed,
            int(epoch.cardinality()),
        )

    def epoch(self, examples, number, num_done=0):
        """Returns the examples, shuffled in the way of one epoch."""
        buckets, lengths = self._buckets(examples)
        if self.shuffle:
            dataset = epoch_order(len(examples), self.seed, number)
        else:
            dataset = tf.data.Dataset.range(len(examples))
        if self.shuffle and lengths:
            keys = tf.constant(buckets)
            dataset = dataset.group_by_window(
                lambda index: keys[index],
                lambda _, window: window.batch(self.batch_size, self.drop_remainder),
                window_size=self.batch_size,
            )
            # tf.data does not count these itself.
            sizes = np.bincount(buckets)
            if not self.drop_remainder:
                sizes = sizes + self.batch_size - 1
            num_batches = int((sizes // self.batch_size).sum())
            dataset = dataset.apply(
                tf.data.experimental.assert_cardinality(num_batches)
            )
        else:
            dataset = dataset.batch(self.batch_size, self.drop_remainder)

        specs = self._specs()

        # Python, so that a bad file is named and one function reads, checks and pads. It
        # runs once for a batch, and the decoders in it run in parallel.
        def read(indices):
            some = [examples[index] for index in indices]
            bucket = buckets[indices].max()
            longest = {name: sizes[bucket] for name, sizes in lengths.items()}
            labels = np.array([example.label for example in some], "int32")
            return [*self._batch(some, longest), labels]

        def load(indices):
            dtypes = [spec.dtype for spec in specs.values()]
            tensors = tf.numpy_function(read, [indices], dtypes)
            for tensor, spec in zip(tensors, specs.values(), strict=True):
                tensor.set_shape((indices.shape[0], *spec.shape))
            *inputs, labels = tensors
            if self.is_dict or self.masked:
                return dict(zip(specs, inputs, strict=False)), labels
            return inputs[0], labels

        dataset = dataset.skip(num_done)
        dataset = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE)
        return dataset.prefetch(tf.data.AUTOTUNE)

    def _specs(self):
        """Returns the shape and dtype of one example's tensors, by name, labels last."""
        specs = {}
        for name, preprocessor in self.preprocessors.items():
            specs[name] = tf.TensorSpec(preprocessor.shape, preprocessor.dtype)
            if name in self.masked:
                mask_shape = preprocessor.shape[: preprocessor.num_mask_axes]
                specs[f"{name}_mask"] = tf.TensorSpec(mask_shape, "bool")
        return {**specs, "": tf.TensorSpec((), "int32")}

    def _batch(self, examples, longest):
        """Returns the arrays of a batch and their masks, in the order of `_specs`."""
        tensors = []
        for name, preprocessor in self.preprocessors.items():
            arrays = [
                self._read(name, example.paths[name]) if name in example.paths else None
                for example in examples
            ]
            batch, mask = padded(arrays, preprocessor, longest.get(name))
            tensors += [batch, mask] if name in self.masked else [batch]
        return tensors

    def _buckets(self, examples):
        """Groups examples by length.

        Returns:
            Array, the group of each example, and dict from the modalities of any length
            to an array, the length of the longest in each group or those before it.
        """
        ragged = {
            name: np.array([max(e.lengths.get(name, 0), 1) for e in examples])
            for name, preprocessor in self.preprocessors.items()
            if preprocessor.shape[0] is None
        }
        if not ragged:
            return np.zeros(len(examples), "int64"), {}
        # With several such modalities, what they fill of their longest, together.
        sizes = sum(lengths / lengths.max() for lengths in ragged.values())
        # A group has at least a batch.
        num_buckets = max(min(self.num_buckets, len(examples) // self.batch_size), 1)
        counts = len(examples) * np.arange(1, num_buckets + 1) // num_buckets
        ends = np.unique(np.sort(sizes)[counts - 1])
        buckets = np.searchsorted(ends, sizes)
        lengths = {
            name: np.maximum.accumulate(
                [lengths[buckets == bucket].max() for bucket in range(len(ends))]
            )
            for name, lengths in ragged.items()
        }
        return buckets, lengths
