"""SavedModels for TF Serving, published only after a round trip in another process."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

_EXPORT_PROGRAM = """
import sys
from keras_perceiver import serving
serving._export_file(*sys.argv[1:])
"""
_CHECK_PROGRAM = Path(__file__).with_name("check_saved_model.py")
_CHECK_BATCH_SIZES = (1, 2, 7)
# Of the difference between the SavedModel's logits and `model.predict`.
_TOLERANCE = {"float32": 1e-5, "float64": 1e-5, "float16": 1e-2, "bfloat16": 1e-1}


def next_version(folder):
    """Returns the number after the highest version in an export folder, at first 1."""
    versions = [int(p.name) for p in Path(folder).glob("*") if p.name.isdigit()]
    return max(versions, default=0) + 1


def check_version(folder, version):
    """Raises unless a new version can be written to an export folder.

    Args:
        folder: Path of the folder that holds the numbered versions.
        version: Integer, number of the version to write.

    Raises:
        ValueError: if `version` is not a positive integer.
        FileExistsError: if it is there already.
        PermissionError: if the folder cannot be written.
    """
    if not isinstance(version, int) or version < 1:
        raise ValueError(
            "`version` must be a positive integer. Received: "
            f"version={version!r}. Leave it out for the next free number."
        )
    target = Path(folder) / str(version)
    if target.exists():
        raise FileExistsError(
            "An exported version is never overwritten. Received: "
            f"version={version}, but {target} exists. "
            f"Leave `version` out for the next free number, {next_version(folder)}."
        )
    check_writable("folder", folder)


def check_writable(name, folder):
    """Makes a folder where it is missing and raises unless a file can be written there.

    Args:
        name: String, what the error calls the folder.
        folder: Path of the folder.

    Raises:
        PermissionError: if the folder cannot be made or written.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise PermissionError(
            f"`{name}` must be a folder that can be written. Received: "
            f"{name}={str(folder)!r} ({error}). "
            "Choose another folder, or change its permissions."
        ) from error


def export_for_serving(model, folder, version=None):
    """Writes a model as a SavedModel to a numbered folder that TF Serving reads.

    The export runs under TensorFlow; a model on another backend goes through a
    `.keras` file and a process of its own. The SavedModel is written next to its place,
    compared with `model.predict` in a process that does not know this package, and only
    then renamed: a server that watches the folder never sees half a model.

    Reference:
        [Serving a model](https://www.tensorflow.org/tfx/serving/serving_basic), for the
        layout of the folder.

    Args:
        model: `Perceiver` or `PerceiverClassifier`.
        folder: Path of the folder that holds the numbered versions.
        version: Integer, number of this version. Defaults to the next free number.

    Returns:
        `pathlib.Path` of the version's folder. Its signature `serving_default` takes the
        model's inputs by name, with a free batch size.

    Raises:
        ValueError: if `version` is not a positive integer.
        FileExistsError: if `version` is there already.
        PermissionError: if the folder cannot be written.
        RuntimeError: if the SavedModel cannot be made, or its outputs differ from those
            of `model.predict`; then nothing is published.

    Example:

    >>> import tempfile
    >>> model = PerceiverClassifier.from_preset("digits", num_blocks=1)
    >>> export_for_serving(model, tempfile.mkdtemp()).name
    '1'
    """
    folder = Path(folder)
    is_chosen = version is not None
    if not is_chosen:
        version = next_version(folder)
    check_version(folder, version)
    # A dot keeps the unfinished folder out of TF Serving's sight.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as work:
        work = Path(work)
        saved_model = work / "saved_model"
        if keras.backend.backend() == "tensorflow":
            _export(model, saved_model)
        else:
            model.save(work / "model.keras")
            _run(["-c", _EXPORT_PROGRAM, work / "model.keras", saved_model])
        _write_examples(model, work / "examples.npz")
        _run([_CHECK_PROGRAM, saved_model, work / "examples.npz"])
        return _publish(saved_model, folder, version, is_chosen)


def _publish(saved_model, folder, version, is_chosen):
    """Renames to a version, or to the next free one if another export was faster."""
    while True:
        try:
            return saved_model.rename(folder / str(version))
        except OSError:
            if is_chosen or not (folder / str(version)).exists():
                raise
            version = next_version(folder)


def _export(model, path):
    model.export(path, format="tf_saved_model", verbose=False)


def _export_file(model_path, path):
    """Exports a `.keras` file: what the process of its own does."""
    _export(keras.saving.load_model(model_path, compile=False), path)


def _write_examples(model, path):
    """Writes random inputs and what `model.predict` makes of them."""
    rng = np.random.default_rng(0)
    encoder = getattr(model, "encoder", model)
    dtype = encoder.iterative_attention.compute_dtype
    arrays = {"tolerance": _TOLERANCE[dtype]}
    for size in _CHECK_BATCH_SIZES:
        inputs = {}
        for name, modality in encoder.byte_array.modalities.items():
            inputs[name] = modality.random_inputs(rng, size)
            if modality.use_mask:
                shape = inputs[name].shape[: 1 + len(modality.mask_shape)]
                inputs[f"{name}_mask"] = rng.random(shape) > 0.25
        outputs = model.predict(
            inputs if isinstance(model.input, dict) else inputs[model.inputs[0].name],
            batch_size=size,
            verbose=0,
        )
        arrays |= {f"{size}/inputs/{name}": x for name, x in inputs.items()}
        arrays[f"{size}/outputs"] = outputs
    np.savez(path, **arrays)


def _run(arguments):
    """Runs Python with these arguments under TensorFlow; its failure is an error."""
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines()
        raise RuntimeError(
            "The export failed and nothing was published. Its last lines:\n"
            + "\n".join(lines[-15:])
        )
