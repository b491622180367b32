"""Predicts for files, and prints a readable table or JSON lines."""

from pathlib import Path
from typing import NamedTuple

from keras_perceiver.cli import arguments, console

_DESCRIPTION = """Predicts for files, or all files in a folder, with a trained model.

  keras-perceiver predict runs/images/1 photo.png
  keras-perceiver predict runs/images/1 photos --top 3
  keras-perceiver predict runs/digits/1 images.npy --json

A model with a preprocessor reads files like those that it was trained on. Any model takes
arrays: .npy with a batch axis, or .npz with the inputs by name. Files of several modalities
belong together if their names without extensions are equal. A file that cannot be read is
an error in its row, and the exit status is 1.
"""


class _Example(NamedTuple):
    name: str
    inputs: dict  # from modality to the path of its file, or to its raw input
    error: str = ""


def parser():
    """Returns the parser of the options."""
    parser = arguments.Parser("predict", _DESCRIPTION)
    parser.add_argument("model", help="path of a .keras file, or folder of a run")
    parser.add_argument("files", nargs="+", help="files, folders of files, or arrays")
    parser.add_argument(
        "--top", type=int, default=1, help="classes in the table; default: 1"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print all outputs, a JSON object per example",
    )
    parser.add_argument("--batch-size", type=int, default=32, help="default: 32")
    return parser


def check(options):
    """Raises an error for invalid options, as far as they can be checked without Keras."""
    arguments.check_backend()
    arguments.check_numbers(options, "top", "batch_size")
    options.model = arguments.model_file(options.model)
    options.files = [Path(path) for path in options.files]
    for path in options.files:
        if not path.is_dir():
            arguments.check_file("A file", path)


def run(options):
    """Prints the predictions."""
    console.import_keras()
    from keras_perceiver.cli import answers, models
    from keras_perceiver.modalities.preprocessors.base import preprocessors_by_name

    model = models.load(options.model)
    readers = preprocessors_by_name(
        getattr(model, "preprocessor", None), model.modalities
    )
    examples, is_array = _examples(options.files, readers, model)
    labels = (
        model.card_entries().get("labels") if hasattr(model, "card_entries") else None
    )
    names = [example.name for example in examples]
    table = answers.Table(names, options.json, labels, options.top)
    num_bad, line = 0, console.Line()
    for start in range(0, len(examples), options.batch_size):
        some = examples[start : start + options.batch_size]
        if not is_array:
            some = [_read(example, readers, model.modalities) for example in some]
        good = [example.inputs for example in some if not example.error]
        inputs = (
            _stacked(good) if is_array else _padded(good, readers, model.modalities)
        )
        outputs = iter(_outputs(model, inputs) if good else ())
        line.clear()
        for example in some:
            table.show(
                example.name,
                {"error": example.error} if example.error else next(outputs),
            )
        num_bad += len(some) - len(good)
        line.show(f"{start + len(some)} of {len(examples)}")
    line.clear()
    if num_bad:
        raise ValueError(
            f"Files must be valid. Received: {num_bad} of {len(examples)} invalid, "
            "with the reasons in their rows. Correct or remove them."
        )


def _examples(paths, readers, model):
    """Returns the list of examples, with files to read, and whether they are arrays."""
    suffixes = {s: name for name, reader in readers.items() for s in reader.suffixes}
    is_array = [
        p.suffix in (".npy", ".npz") and p.suffix not in suffixes for p in paths
    ]
    if any(is_array):
        return [e for path in paths for e in _array(path, model)], True
    missing = sorted(model.modalities.keys() - readers.keys())
    if missing:
        raise ValueError(
            "A model without a preprocessor takes arrays, .npy or .npz. Received: "
            f"{str(paths[0])!r} for a model without a preprocessor of {missing[0]!r}. "
            "Save raw inputs with NumPy, or set the preprocessor of the model."
        )
    files = [file for path in paths for file in _files(path, suffixes)]
    if len(readers) == 1:
        (name,) = readers
        return [_Example(str(file), {name: file}) for file in files], False
    groups = {}
    for file in files:
        name = suffixes.get(file.suffix.lower(), "")
        if name in groups.setdefault(file.stem, {}):
            raise ValueError(
                f"An example must have one file of each modality. Received: {file} and "
                f"{groups[file.stem][name]}. Rename one."
            )
        groups[file.stem][name] = file
    return [_Example(stem, group) for stem, group in groups.items()], False


def _files(path, suffixes):
    """Returns the files in a folder that a preprocessor may read, or the file itself."""
    if not path.is_dir():
        return [path]
    found = [
        file
        for file in sorted(path.rglob("*"))
        if file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    good = [file for file in found if file.suffix.lower() in suffixes]
    if not good:
        raise ValueError(
            f"A folder must have files that end with {', '.join(suffixes)}. Received: "
            f"{str(path)!r} with {len(found)} other files. Pass another folder."
        )
    if len(good) < len(found):
        console.say(f"{path}: skipped {len(found) - len(good)} files of other formats")
    return good


def _array(path, model):
    """Returns an example per row of an array, or of the arrays of an .npz file."""
    from keras_perceiver.serving.client import read_arrays

    inputs = read_arrays(path)
    if not isinstance(inputs, dict):
        inputs = {next(iter(model.modalities)): inputs}
    if isinstance(model.input, dict) and inputs.keys() != model.input.keys():
        raise ValueError(
            f"The arrays must be the inputs of the model, {sorted(model.input)}. "
            f"Received: {sorted(inputs)} in {path}. Save them with `numpy.savez`."
        )
    shapes = {name: array.shape for name, array in inputs.items()}
    if len({shape[:1] for shape in shapes.values()}) != 1 or () in shapes.values():
        raise ValueError(
            "Arrays of a batch must have the same length. Received: arrays of shapes "
            f"{shapes} in {path}. Correct the file."
        )
    return [
        _Example(f"{path}[{i}]", {name: array[i] for name, array in inputs.items()})
        for i in range(len(next(iter(inputs.values()))))
    ]


def _read(example, readers, modalities):
    """Returns an example with raw inputs, or with the error of its files."""
    inputs = {}
    for name, path in example.inputs.items():
        suffixes = [s for reader in readers.values() for s in reader.suffixes]
        if path.suffix.lower() not in suffixes:
            error = f"The file must end with {', '.join(suffixes)}."
            return example._replace(error=error)
        try:
            inputs[name] = readers[name].read(path)
        except (ValueError, OSError) as error:
            return example._replace(error=" ".join(str(error).split()))
    for name in readers.keys() - inputs.keys():
        if not modalities[name].use_mask:
            return example._replace(error=f"A file of {name!r} is missing.")
    return example._replace(inputs=inputs)


def _stacked(rows):
    """Returns the model inputs for rows of arrays."""
    import numpy as np

    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _padded(rows, readers, modalities):
    """Returns the model inputs for raw inputs, some of which may be missing."""
    from keras_perceiver.modalities.preprocessors.base import padded

    inputs = {}
    for name, reader in readers.items():
        arrays = [row.get(name) for row in rows]
        lengths = [len(array) for array in arrays if array is not None]
        length = reader.shape[0] or max(lengths, default=1)
        inputs[name], mask = padded(arrays, reader, length)
        if modalities[name].use_mask:
            inputs[f"{name}_mask"] = mask
    return inputs


def _outputs(model, inputs):
    """Yields the dict of the outputs of each example, as plain values."""
    import keras

    from keras_perceiver.cli import answers
    from keras_perceiver.distribution import predict_on_batch

    size = len(next(iter(inputs.values())))
    if not isinstance(model.input, dict):
        (inputs,) = inputs.values()
    outputs = {
        name: keras.ops.convert_to_numpy(value)
        for name, value in model.serving_outputs(
            predict_on_batch(model, inputs)
        ).items()
    }
    yield from answers.rows(outputs, size)
