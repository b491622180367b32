"""The part of an export that runs under TensorFlow, possibly in another process."""

import base64
import importlib
import json
from pathlib import Path

import keras
import numpy as np

from keras_perceiver.modalities.preprocessors.base import padded
from keras_perceiver.serving import encoded, formats, graph, warmup

_NUM_EXAMPLES = 10


def run_file(work):
    """Runs the job in a folder for the `.keras` file in it."""
    work = Path(work)
    for module in json.loads((work / "job.json").read_text()).get("modules", ()):
        importlib.import_module(module)
    run(keras.saving.load_model(work / "model.keras", compile=False), work)


def run(model, work):
    """Runs the job in a folder: writes an export, and examples to verify it.

    Args:
        model: `Perceiver` or a task.
        work: Path of a folder with `job.json`. `inputs.npz` is written to it, and
            `saved_model` and `signatures.json` unless the job names another file.
    """
    job = json.loads((work / "job.json").read_text())
    if "format" in job:
        formats.EXPORT[job["format"]](model, job["file"])
        _write_examples(model, {graph.DEFAULT: {}}, work / "inputs.npz")
        return
    preprocessors = {
        name: keras.saving.deserialize_keras_object(config)
        for name, config in job["preprocessors"].items()
    }
    signatures = {graph.DEFAULT: {}}
    if preprocessors:
        signatures[encoded.ENCODED] = preprocessors
    path = work / "saved_model"
    graph.save(model, path, signatures, job["weights"])
    warmup.write(path, model, signatures, job["name"], job["batch_sizes"])
    tables = {name: _table(model, files) for name, files in signatures.items()}
    (work / "signatures.json").write_text(json.dumps(tables))
    _write_examples(model, signatures, work / "inputs.npz")


def _table(model, preprocessors):
    """Returns the inputs of a signature as JSON-serializable values."""
    table = {
        name: {"dtype": dtype, "shape": shape}
        for name, (dtype, shape) in graph.input_table(model, preprocessors).items()
    }
    for name, preprocessor in preprocessors.items():
        table[name]["files"] = {
            "preprocessor": type(preprocessor).__name__,
            **preprocessor.get_config(),
        }
    return table


def _write_examples(model, signatures, path):
    """Writes random requests for every signature, and the resulting model inputs.

    Keys are `signature/inputs/name`, `signature/base64/name` for bytes, and
    `signature/arrays/name`.
    """
    rng = np.random.default_rng(0)
    arrays = {}
    for signature, preprocessors in signatures.items():
        for name, modality in model.modalities.items():
            if name in preprocessors:
                files, inputs = _files(name, preprocessors[name], modality, rng)
                coded = [base64.b64encode(file) for file in files]
                arrays[f"{signature}/base64/{name}"] = np.array(coded)
            else:
                inputs = _inputs(name, modality, rng)
                arrays |= {f"{signature}/inputs/{k}": x for k, x in inputs.items()}
            arrays |= {f"{signature}/arrays/{k}": x for k, x in inputs.items()}
        for name, limit in model.index_inputs.items():
            indices = rng.integers(0, limit, (_NUM_EXAMPLES, 3)).astype("int32")
            for kind in ("inputs", "arrays"):
                arrays[f"{signature}/{kind}/{name}"] = indices
    np.savez(path, **arrays)


def _inputs(name, modality, rng):
    inputs = {name: modality.random_inputs(rng, _NUM_EXAMPLES)}
    if modality.use_mask:
        shape = inputs[name].shape[: 1 + len(modality.mask_shape)]
        inputs[f"{name}_mask"] = rng.random(shape) > 0.25
    return inputs


def _files(name, preprocessor, modality, rng):
    """Returns random files, and the raw inputs that the host reads from them."""
    max_length = modality.example_shape[0]
    files = [preprocessor.random_file(rng, max_length) for _ in range(_NUM_EXAMPLES)]
    arrays = [preprocessor.read_content(content, suffix) for suffix, content in files]
    batch, mask = padded(arrays, preprocessor)
    inputs = {name: batch, **({f"{name}_mask": mask} if modality.use_mask else {})}
    return [content for _, content in files], inputs
