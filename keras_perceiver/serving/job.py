"""What an export does under TensorFlow: the model's, or a process of its own."""

import base64
import json
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_perceiver.data import AudioFiles
from keras_perceiver.serving import encoded, formats, graph, warmup

_NUM_EXAMPLES = 10


def run_file(work):
    """Does the job in a folder for the model that is there as a `.keras` file."""
    work = Path(work)
    run(keras.saving.load_model(work / "model.keras", compile=False), work)


def run(model, work):
    """Does the job in a folder: writes an export, and examples to check it with.

    Args:
        model: `Perceiver` or a task.
        work: Path of a folder with `job.json`; gets `saved_model`, `signatures.json` and
            `inputs.npz`, or the file that the job asks for and `inputs.npz`.
    """
    job = json.loads((work / "job.json").read_text())
    modalities = model.modalities
    if "format" in job:
        formats.EXPORT[job["format"]](model, job["file"])
        _write_examples(modalities, {graph.DEFAULT: {}}, work / "inputs.npz")
        return
    if job["readers"] is None:
        readers = encoded.default_readers(modalities)
        readers = {"encoded": readers} if readers else {}
    else:
        readers = {
            signature: {
                name: encoded.reader_from_config(config)
                for name, config in configs.items()
            }
            for signature, configs in job["readers"].items()
        }
    path = work / "saved_model"
    graph.save(model, path, readers, job["weights"])
    readers = {graph.DEFAULT: {}, **readers}
    warmup.write(path, modalities, readers, job["name"], job["batch_sizes"])
    tables = {name: _table(modalities, of) for name, of in readers.items()}
    (work / "signatures.json").write_text(json.dumps(tables))
    _write_examples(modalities, readers, work / "inputs.npz")


def _table(modalities, readers):
    """Returns the inputs of a signature, for people and JSON."""
    table = {
        name: {"dtype": dtype, "shape": shape}
        for name, (dtype, shape) in graph.input_table(modalities, readers).items()
    }
    for name, reader in readers.items():
        table[name]["bytes"] = encoded.reader_to_config(reader)
    return table


def _write_examples(modalities, readers, path):
    """Writes random requests for every signature, and the model's inputs in them.

    Keys are `signature/inputs/name`, for bytes `signature/base64/name`, and
    `signature/arrays/name`.
    """
    rng = np.random.default_rng(0)
    arrays = {}
    for signature, of_signature in readers.items():
        for name, modality in modalities.items():
            if name in of_signature:
                files, inputs = _files(name, of_signature[name], modality, rng)
                coded = [base64.b64encode(file) for file in files]
                arrays[f"{signature}/base64/{name}"] = np.array(coded)
            else:
                inputs = _inputs(name, modality, rng)
                arrays |= {f"{signature}/inputs/{k}": x for k, x in inputs.items()}
            arrays |= {f"{signature}/arrays/{k}": x for k, x in inputs.items()}
    np.savez(path, **arrays)


def _inputs(name, modality, rng):
    inputs = {name: modality.random_inputs(rng, _NUM_EXAMPLES)}
    if modality.use_mask:
        shape = inputs[name].shape[: 1 + len(modality.mask_shape)]
        inputs[f"{name}_mask"] = rng.random(shape) > 0.25
    return inputs


def _files(name, reader, modality, rng):
    """Returns random files, and the inputs that their reader makes of them."""
    make = _sound if isinstance(reader, AudioFiles) else _image
    files = [make(reader, modality, rng, i) for i in range(_NUM_EXAMPLES)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        read = []
        for content in files:
            path.write_bytes(content)
            read.append(reader.read(path))
    length = reader.shape[0] or max(map(len, read))
    array = np.zeros((len(read), length, *reader.shape[1:]), "float32")
    mask = np.zeros(array.shape[: 1 + reader.num_mask_axes], "bool")
    for row, x in enumerate(read):
        array[row, : len(x)], mask[row, : len(x)] = x, True
    return files, {name: array, **({f"{name}_mask": mask} if modality.use_mask else {})}


def _image(reader, modality, rng, i):
    """Returns a PNG or JPEG, of the right size or another one in turn."""
    height, width, channels = reader.shape
    if i % 3:
        height, width = height + int(rng.integers(1, height + 1)), width + i
    pixels = rng.integers(0, 256, (height, width, channels)).astype("uint8")
    if i % 2 and channels in (1, 3):
        return tf.io.encode_jpeg(pixels).numpy()
    return tf.io.encode_png(pixels).numpy()


def _sound(reader, modality, rng, i):
    """Returns a WAV, of the greatest length, shorter or longer as the reader takes."""
    length = modality.num_samples
    if i % 3 and reader.use_mask:
        length = int(rng.integers(1, length + 1))
    elif i % 3 and reader.shape[0] is not None:
        length += i
    samples = rng.uniform(-1, 1, (length, 1)).astype("float32")
    return tf.audio.encode_wav(samples, reader.sample_rate).numpy()
