"""Folders of labeled files, `<folder>/<class>/<file>`, as `tf.data` pipelines."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from keras_perceiver._checks import check_positive
from keras_perceiver.data.buckets import FolderPipeline
from keras_perceiver.data.examples import find_examples
from keras_perceiver.modalities.preprocessors import Preprocessor

if TYPE_CHECKING:
    from keras_perceiver._typing import PathLike, Preprocessors

# Examples that are checked at once. A progress bar is shown for more than these.
_CHECKED_AT_ONCE = 512


def read_folder(
    folder: PathLike | dict[str, PathLike],
    preprocessor: Preprocessors,
    batch_size: int,
    class_names: Sequence[str] | None = None,
    shuffle: bool = True,
    seed: int = 0,
    drop_remainder: bool = False,
    num_buckets: int = 8,
    allow_missing: bool = False,
    skip_bad_files: bool = False,
    check_files: bool = True,
    use_cache: bool = False,
) -> LabeledFolder:
    """Reads labeled files of one or several modalities as a `tf.data.Dataset`.

    Files are at `<folder>/<class>/<file>`. Several modalities are joined by class and
    by file name without the extension: `dog/0001.wav` belongs to `dog/0001.png`. Names
    are compared in Unicode's normalization form NFC. Files that belong to no example,
    such as those with other extensions, and folders inside class folders are counted in
    a warning and listed in `ignored`.

    Examples of variable length are padded at the end. To keep padding low, they are
    bucketed by length into `num_buckets` buckets of equal size, and a batch has the
    maximum length of its bucket, so that a compiled model sees no more than
    `num_buckets` shapes. Without `shuffle`, examples keep their order instead.

    Args:
        folder: Path, or dict from modality name to path if each modality has its own
            folder.
        preprocessor: `Preprocessor` of the files, such as
            `ImagePreprocessor((32, 32, 3))`, or dict of preprocessors by modality name.
        batch_size: Integer, examples per batch.
        class_names: List of strings, the classes in the order of the labels. For a test
            folder, pass the `class_names` of the training folder: some of the classes
            may be missing. Defaults to the sorted names of the class folders.
        shuffle: Boolean, whether to reshuffle the examples every epoch.
        seed: Integer, seed of the shuffling.
        drop_remainder: Boolean, whether to drop batches that are not full (a different
            subset each epoch).
        num_buckets: Integer, maximum number of buckets.
        allow_missing: Boolean. `True`: modalities of an example may be missing. All
            modalities get masks, which are `False` for those that are missing. `False`:
            a missing modality is an error.
        skip_bad_files: Boolean. `True`: examples with invalid files are skipped, with a
            warning that counts them. One that becomes invalid after it was checked is
            left out of its batch, or replaced by another one of the batch with
            `drop_remainder=True`. `False`: the first invalid file is an error.
        check_files: Boolean, whether to read and check all files first. `False`: an
            invalid file is an error when it is read.
        use_cache: Boolean, whether to cache all arrays in memory.

    Returns:
        `LabeledFolder`. The elements of its dataset are `(inputs, labels)` of dtypes
        float32 and int32. `inputs` is a tensor. If `preprocessor` is a dict, or there
        is a mask, it is a dict with a tensor `"<name>"` per modality and, for
        preprocessors with a mask, a boolean tensor `"<name>_mask"` of the same shape
        without channels, `False` for padding.

    Raises:
        TypeError: if `preprocessor` is not a `Preprocessor` or a dict of them, or if
            `class_names` is not a list of strings.
        FileNotFoundError: if a folder is missing.
        ValueError: if there is nothing to read, if a class is not in `class_names`, if
            a file is invalid (the error names it), or if the arguments are
            inconsistent. With `check_files=False`, an invalid file raises TensorFlow's
            `InvalidArgumentError` with the same text.

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
    preprocessors: dict[Any, Any] = (
        preprocessor
        if isinstance(preprocessor, dict)
        else {getattr(preprocessor, "input_name", None): preprocessor}
    )
    for name, each in preprocessors.items():
        if not isinstance(each, Preprocessor):
            where = f" for {name!r}" if is_dict else ""
            raise TypeError(
                "`preprocessor` must be a `Preprocessor` or a dict of them. Received: "
                f"{each!r} of type {type(each).__name__}{where}. "
                "Pass, for example, `ImagePreprocessor((height, width, channels))`."
            )
    folders = (
        folder if isinstance(folder, dict) else dict.fromkeys(preprocessors, folder)
    )
    if folders.keys() != preprocessors.keys():
        raise ValueError(
            "`folder` and `preprocessor` must have the same modalities. Received: "
            f"{sorted(folders)} and {sorted(preprocessors)}. Pass one folder per "
            "preprocessor."
        )
    check_positive(batch_size=batch_size, num_buckets=num_buckets)
    lengths = [each.shape[0] for each in preprocessors.values()]
    is_ragged = None in lengths
    if not check_files and (skip_bad_files or is_ragged):
        raise ValueError(
            "Skipping bad files, and inputs of variable length, need `check_files=True`. "
            f"Received: check_files=False, skip_bad_files={skip_bad_files}, "
            f"lengths {lengths}. "
            "Set `check_files=True`, or a fixed length and `skip_bad_files=False`."
        )

    skipped = {}

    def report(path, error):
        if not skip_bad_files:
            raise error
        skipped[path] = str(error)

    pipeline = FolderPipeline(
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
        skipped=skipped if skip_bad_files else None,
    )
    paths = {name: Path(path) for name, path in folders.items()}
    examples, class_names, ignored = find_examples(
        paths, preprocessors, class_names, allow_missing, report
    )
    if check_files:
        examples = _check(examples, pipeline, report)
    if not examples:
        first = next(iter(skipped.values()), "none")
        raise ValueError(
            "There must be a valid file to read. Received: none in "
            f"{[str(path) for path in folders.values()]}, {len(skipped)} skipped. "
            f"The first: {first} {ignored.text()}".strip()
        )
    if ignored.text():
        warnings.warn(ignored.text(), stacklevel=2)
    if skipped:
        warnings.warn(
            f"Bad files skipped: {len(skipped)}, examples read: {len(examples)}. "
            f"`skipped` lists them, the first: {next(iter(skipped))}",
            stacklevel=2,
        )
    return _labeled(examples, class_names, tuple(ignored.items()), pipeline)


@dataclasses.dataclass(frozen=True)
class LabeledFolder:
    """A dataset of labeled files, as `read_folder` returns it.

    Attributes:
        dataset: Batched `tf.data.Dataset` of `(inputs, labels)`.
        class_names: Tuple of strings, in the order of the labels.
        paths: Tuple with the path of each example, or a dict from modality name to path
            if `preprocessor` is a dict. Without `shuffle`, it has the order of the
            dataset.
        ignored: Tuple of pairs of path and kind, for everything in the folder that
            belongs to no example: files with other extensions, folders inside class
            folders, files of the operating system, and, without a warning, hidden files
            (their name starts with a dot) and files with the name of an example, such
            as its caption.
    """

    dataset: tf.data.Dataset
    class_names: tuple
    paths: tuple
    ignored: tuple
    _examples: list = dataclasses.field(repr=False)
    _pipeline: object = dataclasses.field(repr=False)

    @property
    def skipped(self):
        """Tuple of pairs of path and reason, for the bad files that were skipped.

        A file that has changed since it was checked is added when it is read.
        """
        return tuple((self._pipeline.skipped or {}).items())

    def epoch(self, number, num_done=0):
        """Returns the data of one epoch, which is reproducible from its number.

        Args:
            number: Int64 scalar, number of the epoch.
            num_done: Int64 scalar, number of batches to skip at the beginning. Their
                files are not read.

        Returns:
            `tf.data.Dataset` like `dataset`.
        """
        return self._pipeline.epoch(self._examples, number, num_done)

    def split(self, validation_fraction=0.2, group=None):
        """Splits the examples of each class into training and validation data.

        The split depends on the files only, so that hyperparameters can be chosen
        without the test data. A class with a single group is in the training data only.

        Args:
            validation_fraction: Float in (0, 1), fraction of each class.
            group: Callable that takes a file's name without its extension and returns
                its group, such as the speaker. A group is never split. By default, each
                example is its own group.

        Returns:
            Pair of `LabeledFolder`. The second one is not shuffled and drops no batch.

        Raises:
            ValueError: if the fraction is not in (0, 1), or if every class has one
                group only.
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
                "A split needs a class with two groups or more. Received: one group in "
                f"each of {len(self.class_names)} classes. Use smaller groups."
            )
        in_order = dataclasses.replace(
            self._pipeline, shuffle=False, drop_remainder=False
        )
        return (
            _labeled(train, self.class_names, self.ignored, self._pipeline),
            _labeled(validation, self.class_names, self.ignored, in_order),
        )


def _labeled(examples, class_names, ignored, pipeline):
    paths = [example.paths for example in examples]
    if not pipeline.is_dict:
        paths = [path for each in paths for path in each.values()]
    return LabeledFolder(
        pipeline.dataset(examples),
        class_names,
        tuple(paths),
        ignored,
        examples,
        pipeline,
    )


def _check(examples, pipeline, report):
    """Reads every file once, and returns the valid examples with their lengths."""
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
        rng = np.random.default_rng(0)  # the same split for all seeds of a run
        num_held_out = 0
        members = list(groups.values())
        # The last group stays in training.
        for choice in rng.permutation(len(members))[:-1]:
            # At least one, then as long as it gets closer to the fraction.
            if num_held_out and num_held_out + len(members[choice]) / 2 > wanted:
                break
            held_out.update(members[choice])
            num_held_out += len(members[choice])
    return (
        [e for index, e in enumerate(examples) if index not in held_out],
        [e for index, e in enumerate(examples) if index in held_out],
    )
