"""Folders of labelled files as `tf.data` pipelines: `<folder>/<class>/<file>`."""

import dataclasses
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_perceiver._checks import check_positive
from keras_perceiver.data.buckets import FolderPipeline
from keras_perceiver.data.examples import find_examples
from keras_perceiver.modalities.preprocessors import Preprocessor

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
    Names that look the same are the same, in whatever form of Unicode a system writes
    them. What is no file of an example, such as other endings and folders in those of
    the classes, is counted in a warning and listed in `ignored`.

    Where files have any length, a batch is padded at the end. To pad little, examples
    of about one length come together, in `num_buckets` groups of as many examples, and
    a batch is as long as the longest of its group: a compiled model sees no more than
    `num_buckets` shapes. Without `shuffle` examples keep their order instead.

    Args:
        folder: Path, or dict from modality name to path where each has its own.
        preprocessor: Preprocessor of the files, such as `ImagePreprocessor((32, 32, 3))`,
            or dict of preprocessors by the modality's name.
        batch_size: Integer, examples per batch.
        class_names: List of strings, the classes in the order of the labels, such
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
            used, with a warning that counts them; one that changes after it was checked
            is left out of its batch, or replaced by another of the batch where all
            batches are full. `False`: the first is an error.
        check_files: Boolean, whether to read all files once before anything is
            returned. `False`: a bad file is an error when it is met.
        use_cache: Boolean, whether to keep all arrays in memory.

    Returns:
        `LabeledFolder`. The elements of its dataset are `(inputs, labels)`: float32
        and int32. `inputs` is a tensor, or, if `preprocessor` is a dict or there is a
        mask, a dict with a tensor `"<name>"` and, for preprocessors with a mask,
        booleans `"<name>_mask"` of the shape without channels, `False` for padding.

    Raises:
        TypeError: if there is something else than preprocessors, or if `class_names` is
            no list of strings.
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
    folders = {name: Path(path) for name, path in folders.items()}
    examples, class_names, ignored = find_examples(
        folders, preprocessors, class_names, allow_missing, report
    )
    if check_files:
        examples = _check(examples, pipeline, report)
    if not examples:
        first = next(iter(skipped.values()), "none")
        raise ValueError(
            "There must be a file to read. Received: none that can be used in "
            f"{[str(path) for path in folders.values()]}, {len(skipped)} left out. "
            f"The first: {first} {ignored.text()}".strip()
        )
    if ignored.text():
        warnings.warn(ignored.text(), stacklevel=2)
    if skipped:
        warnings.warn(
            f"Left out {len(skipped)} bad files, read {len(examples)} examples. "
            f"`skipped` lists them, the first: {next(iter(skipped))}",
            stacklevel=2,
        )
    return _labeled(examples, class_names, tuple(ignored.items()), pipeline)


@dataclasses.dataclass(frozen=True)
class LabeledFolder:
    """What `read_folder` returns.

    Attributes:
        dataset: Batched `tf.data.Dataset` of `(inputs, labels)`.
        class_names: Tuple of strings; label 0 is the first.
        paths: Tuple, for every example its path, or, if it was read as a dict of
            modalities, a dict from modality name to path, without those it lacks. Without
            `shuffle` in the order of the dataset.
        ignored: Tuple of pairs, path and kind, of what lies in the folder and is no file
            of an example: other endings, folders in those of the classes, what is of the
            operating system, and, without a warning, what is hidden (its name begins with
            a dot) or has the name of an example, such as its caption.
    """

    dataset: tf.data.Dataset
    class_names: tuple
    paths: tuple
    ignored: tuple
    _examples: list = dataclasses.field(repr=False)
    _pipeline: object = dataclasses.field(repr=False)

    @property
    def skipped(self):
        """Tuple of pairs, path and reason, of the bad files that were left out.

        A file that has changed since it was checked comes to them when it is met.
        """
        return tuple((self._pipeline.skipped or {}).items())

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
            Pair of `LabeledFolder`. The second is in order and has every batch.

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
