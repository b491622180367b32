"""Exports of models, which are verified in another process and published atomically."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_perceiver import _locks
from keras_perceiver._files import (
    check_writable,
    next_number,
    publish_file,
    publish_folder,
    unfinished_folder,
    write_if_missing,
    writing,
)
from keras_perceiver.modalities.preprocessors.base import preprocessors_by_name
from keras_perceiver.models.tasks.base import check_model
from keras_perceiver.serving import card, manifest
from keras_perceiver.serving.config import BATCH_SIZES, batching_config, models_config
from keras_perceiver.serving.processes import run_python
from keras_perceiver.serving.versions import (
    FORMATS,
    check_format,
    check_serving,
    check_version,
    check_weights,
)
from keras_perceiver.serving.weights import quantized_copy

if TYPE_CHECKING:
    from keras_perceiver._typing import PathLike, Preprocessors

_EXPORT_PROGRAM = """
import sys
from keras_perceiver.serving import job
job.run_file(sys.argv[1])
"""
# -P: the scripts must not import modules from their own folder.
_CHECK_PROGRAM = "-P", Path(__file__).with_name("check_saved_model.py")
_FILE_CHECK_PROGRAM = "-P", Path(__file__).with_name("check_file.py")
# How often non-numeric outputs, such as class names, are computed from predictions that
# are perturbed within the tolerance, to find those that rounding may change.
_NUM_ROUNDINGS = 8
_FULL_DISK = "Nothing was published. Make room and export again."
_NO_ENCODED = (
    "There is no signature `encoded`, since the model has no preprocessor that decodes "
    "files in a graph. Clients must send arrays that are preprocessed like the training "
    "data. Set `model.preprocessor` to add the signature."
)
# Tolerance of the difference between the outputs of an export and `model.predict`.
_TOLERANCE = {"float32": 1e-5, "float64": 1e-5, "float16": 1e-2, "bfloat16": 1e-1}


def export_for_serving(
    model: keras.Model,
    folder: PathLike,
    version: int | None = None,
    preprocessor: Preprocessors | None = None,
    weights: str = "float32",
    metrics: dict | None = None,
    test_data: Iterable | None = None,
    use_check: bool = True,
) -> Path:
    """Exports a model as a SavedModel to a numbered folder for TF Serving.

    The export runs under TensorFlow. A model on another backend is exported by another
    process, from a `.keras` file. The SavedModel is written to a temporary folder,
    compared with `model.predict` in a process without this package, and then renamed, so
    that a server that watches the folder never loads an incomplete model.

    The signature `serving_default` takes the inputs of the model by name, with a
    dynamic batch size, and returns the `serving_outputs` of the task: `logits`,
    `probabilities` and `classes` (the name of the most probable class) for a
    classifier, and `latents` for a `Perceiver`. The signature `encoded` takes the bytes
    of files, and preprocesses them in the graph as the preprocessor of the model does
    on the host. A model without a preprocessor has no such signature. Both signatures
    reject invalid requests with an error that names the input and the example.

    The folder of the version also contains `model_card.json`, warm-up requests for
    TF Serving, and `SHA256SUMS`, the hashes of all files, see `verify_version`. The first
    export writes `models.config` next to the versions and, unless inputs have dynamic
    lengths, `batching.config`.

    Reference:
        [Serving a model](https://www.tensorflow.org/tfx/serving/serving_basic).

    Args:
        model: `Perceiver` or a task, such as `PerceiverClassifier`.
        folder: Path of the folder with the numbered versions.
        version: Integer, number of this version. Defaults to the next free number.
        preprocessor: `Preprocessor` of the signature `encoded`, or dict of preprocessors
            by modality name. Modalities without one, or whose preprocessor cannot decode
            files in a graph, are sent as arrays. Defaults to that of the model. `{}`
            disables the signature.
        weights: String, how weights are stored: `"float32"`, `"float16"`, `"bfloat16"`
            or `"int8"` (matrices only, with one scale per unit). The graph converts them
            back for each request. The effect is measured, printed, and in the card.
        metrics: Dict of other entries for the card, such as those of `metrics.json`.
        test_data: Batches of `(inputs, targets)`, such as a `tf.data.Dataset`. If
            `weights` is not `"float32"`, the score of the task is measured on them before
            and after the conversion.
        use_check: Boolean, whether to compare the outputs before publishing. This takes
            about as long as predictions for 40 examples.

    Returns:
        `pathlib.Path` of the folder of the version.

    Raises:
        ImportError: if `tensorflow-serving-api` is not installed.
        TypeError: if `model` or a preprocessor is of another class.
        ValueError: if `version` is not a positive integer, if `weights` is unknown, or if a
            preprocessor does not match its modality.
        FileExistsError: if `version` exists already.
        PermissionError: if the folder is not writable.
        BlockingIOError: if another process writes the same `version`.
        OSError: if the disk is full. In this case, nothing is published.
        RuntimeError: if the export fails, or if its outputs differ from those of
            `model.predict`. In this case, nothing is published.

    Example:

    >>> import tempfile
    >>> model = PerceiverClassifier.from_preset("digits", num_blocks=1)
    >>> model.preprocessor = ImagePreprocessor((8, 8, 1))
    >>> export_for_serving(model, tempfile.mkdtemp()).name  # doctest: +ELLIPSIS
    `encoded` takes as `image` a PNG, JPEG or GIF of 8 bits per channel, ...
    '1'
    """
    check_serving()
    folder = Path(folder)
    is_chosen = version is not None
    if not is_chosen:
        version = next_number(folder)
    check_version(folder, version)
    check_model(model)
    check_weights(weights)
    if test_data is not None and model.score is None:
        raise ValueError(
            "`test_data` needs a task with a score. Received: test_data and a "
            f"{type(model).__name__}. Remove `test_data`, or export the task."
        )
    preprocessors = _graph_preprocessors(model, preprocessor)
    notes = _notes(preprocessors)
    print(*notes, sep="\n", end="\n" if notes else "")
    job = {
        "preprocessors": {
            name: keras.saving.serialize_keras_object(each)
            for name, each in preprocessors.items()
        },
        "modules": _modules(model, preprocessors),
        "weights": weights,
        "name": folder.resolve().name,
        "batch_sizes": BATCH_SIZES,
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(writing(f"The export to {str(folder)!r}", _FULL_DISK))
        if is_chosen:
            name = f".{version}{_locks.NAME}"
            what = f"The version {str(folder / str(version))!r}"
            stack.enter_context(_locks.locked(folder / name, what))
            check_version(folder, version)  # another process may have written it
        work = stack.enter_context(unfinished_folder(folder))
        _run_job(model, work, job)
        served = model if weights == "float32" else quantized_copy(model, weights)
        difference = {}
        if served is not model:
            difference = _difference(model, served, work, test_data)
            print(_difference_text(weights, difference))
        if use_check:
            _write_expected(served, work, served.serving_outputs)
            run_python(*_CHECK_PROGRAM, work)
        path = work / "saved_model"
        tables = json.loads((work / "signatures.json").read_text())
        text = card.text(model, tables, weights, difference, metrics, notes)
        (path / card.NAME).write_text(text)
        manifest.write_manifest(path)
        write_if_missing(folder / "models.config", models_config(job["name"]))
        has_lengths = any(m.dynamic_lengths for m in model.modalities.values())
        if not has_lengths and not model.index_inputs:
            write_if_missing(folder / "batching.config", batching_config())
        return publish_folder(path, folder, version, is_chosen)


def export_file(
    model: keras.Model, path: PathLike, format: str, use_check: bool = True
) -> Path:
    """Exports a model to a file for ONNX Runtime or LiteRT, by Keras' own exporters.

    The file has the inputs and the output (logits) of the model, with a dynamic batch
    size.

    Args:
        model: `Perceiver` or a task, such as `PerceiverClassifier`.
        path: Path of the file, which must not exist.
        format: String, `"onnx"` or `"litert"`, which need the extra of the same name.
        use_check: Boolean, whether to compare the file with `model.predict` at several
            batch sizes, in a separate process, before it is published.

    Returns:
        `pathlib.Path` of the file.

    Raises:
        TypeError: if `model` is of another class.
        ValueError: if the format is unknown, or if the file has another extension.
        ImportError: if a package that the format needs is not installed.
        FileExistsError: if the file exists already.
        PermissionError: if its folder is not writable.
        BlockingIOError: if another process writes the same file.
        OSError: if the disk is full. In this case, no file is written.
        RuntimeError: if the export fails, or if its outputs differ. In this case, no file
            is written.
    """
    path = Path(path)
    check_format(format, path, use_check)
    check_model(model)
    check_writable("folder", path.parent)
    lock = path.with_name(f".{path.name}{_locks.NAME}")
    with (
        writing(f"The export to {str(path)!r}", _FULL_DISK),
        _locks.locked(lock, f"The file {str(path)!r}"),
        unfinished_folder(path.parent) as work,
    ):
        # Another process may have written it.
        check_format(format, path, use_check)
        unfinished = work / f"model{FORMATS[format]}"
        _run_job(model, work, {"format": format, "file": str(unfinished)})
        if use_check:
            _write_expected(model, work, lambda y_pred: {"output": y_pred})
            run_python(*_FILE_CHECK_PROGRAM, unfinished, work)
        publish_file(unfinished, path)
    return path


def _graph_preprocessors(model, preprocessor):
    """Returns the preprocessors of the signature `encoded` by modality name."""
    if preprocessor is None:
        preprocessor = getattr(model, "preprocessor", None)
    preprocessors = preprocessors_by_name(preprocessor, model.modalities)
    return {name: each for name, each in preprocessors.items() if each.has_graph_form}


def _notes(preprocessors):
    """Returns notes for clients about the signature `encoded`."""
    if not preprocessors:
        return [_NO_ENCODED]
    return [
        f"`encoded` takes as `{name}` {each.graph_file_kind}. Other files that training "
        "can read are rejected: convert them, or send arrays."
        for name, each in preprocessors.items()
        if each.graph_file_kind != each.file_kind
    ]


def _modules(model, preprocessors):
    """Returns the modules of user-defined classes, which another process must import."""
    modalities = model.modalities.values()
    encodings = [modality.position_encoding for modality in modalities]
    parts = [model, *model.layers, *modalities, *encodings, *preprocessors.values()]
    modules = {type(part).__module__ for part in parts}
    return sorted(
        module
        for module in modules
        if module.split(".")[0] not in ("__main__", "keras", "keras_perceiver")
    )


def _run_job(model, work, job):
    """Exports under TensorFlow, in this process or in another one."""
    (work / "job.json").write_text(json.dumps(job))
    if keras.backend.backend() == "tensorflow":
        from keras_perceiver.serving import job as in_tensorflow

        in_tensorflow.run(model, work)
    else:
        model.save(work / "model.keras")
        run_python("-c", _EXPORT_PROGRAM, work)


def _examples(work):
    """Yields each signature that `job` wrote, and the model inputs of its examples."""
    with np.load(work / "inputs.npz") as inputs:
        for signature in sorted({key.split("/")[0] for key in inputs.files}):
            prefix = f"{signature}/arrays/"
            names = [key for key in inputs.files if key.startswith(prefix)]
            yield signature, {key.removeprefix(prefix): inputs[key] for key in names}


def _predict(model, arrays):
    inputs = arrays if isinstance(model.input, dict) else next(iter(arrays.values()))
    # Batches of equal size are compiled once.
    return model.predict(inputs, batch_size=2, verbose=0)


def _write_expected(model, work, outputs_of):
    """Writes the reference outputs of `model.predict` for the examples.

    Args:
        model: `Perceiver` or a task.
        work: Path of the folder with the examples.
        outputs_of: Callable that takes predictions and returns the dict of outputs.
    """
    tolerance = _TOLERANCE[model.compute_dtype]
    expected = {}
    for signature, arrays in _examples(work):
        y_pred = _predict(model, arrays)
        outputs = _host_outputs(outputs_of, y_pred)
        is_sure = {
            f"{name}/is_sure": _is_sure(name, outputs_of, y_pred, tolerance)
            for name, output in outputs.items()
            if output.dtype.kind != "f"
        }
        for name, output in {**outputs, **is_sure}.items():
            expected[f"{signature}/{name}"] = output
    np.savez(work / "outputs.npz", **expected)
    np.savez(work / "settings.npz", tolerance=tolerance)


def _is_sure(name, outputs_of, y_pred, tolerance):
    """Returns for which examples a non-numeric output is not affected by rounding."""
    rng = np.random.default_rng(0)
    scale = tolerance * max(1.0, float(np.abs(y_pred).max()))
    expected = _host_outputs(outputs_of, y_pred)[name]
    is_sure = np.ones(expected.shape, bool)
    for _ in range(_NUM_ROUNDINGS):
        rounded = y_pred + scale * rng.uniform(-1, 1, y_pred.shape)
        rounded = rounded.astype(y_pred.dtype)
        is_sure &= _host_outputs(outputs_of, rounded)[name] == expected
    return is_sure


def _host_outputs(outputs_of, y_pred):
    """Returns outputs as NumPy arrays, with text as Unicode."""
    outputs = {}
    for name, output in outputs_of(y_pred).items():
        array = keras.ops.convert_to_numpy(output)
        if array.dtype == object:  # the bytes of TensorFlow's strings
            array = np.array([text.decode() for text in array.flat])
        outputs[name] = array
    return outputs


def _difference(model, served, work, test_data):
    """Measures the effect of quantized weights on the outputs."""
    arrays = dict(_examples(work))["serving_default"]
    before, after = _predict(model, arrays), _predict(served, arrays)
    difference = {
        "random_examples": len(before),
        "largest_difference": float(np.abs(before - after).max()),
        "largest_value": float(np.abs(before).max()),
    }
    before, after = (_host_outputs(model.serving_outputs, x) for x in (before, after))
    for name, output in before.items():
        if output.dtype.kind != "f":
            difference[f"same_{name}"] = int(np.sum(output == after[name]))
    if test_data is not None:
        test_data = list(test_data)
        for suffix, measured in (("_float32", model), ("", served)):
            difference[f"test_{model.score}{suffix}"] = _score(measured, test_data)
    return difference


def _score(model, batches):
    # JAX takes no tensors of TensorFlow.
    batches = keras.tree.map_structure(np.asarray, batches)
    y_pred = np.concatenate([model.predict_on_batch(inputs) for inputs, _ in batches])
    report = model.report(np.concatenate([y for _, y in batches]), y_pred)
    return report.metrics()[model.score]


def _difference_text(weights, difference):
    text = (
        f"weights in {weights}: outputs of up to {difference['largest_value']:.4g} "
        f"differ by at most {difference['largest_difference']:.2g}"
    )
    for key, value in difference.items():
        if key.startswith("same_"):
            num, name = difference["random_examples"], key.removeprefix("same_")
            text += f", {value} of {num} random examples keep their {name}"
        if f"{key}_float32" in difference:
            text += (
                f", {key.replace('_', ' ')} {value:.4f} "
                f"(in float32 {difference[f'{key}_float32']:.4f})"
            )
    return text
