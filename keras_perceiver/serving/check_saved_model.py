"""Compares a SavedModel with recorded outputs: `check_saved_model.py FOLDER`.

Run as a file, in a process of its own, it sees what a server sees: the SavedModel alone,
without the Python code that made it.
"""

import base64
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

# Of one, two and seven examples.
_BATCHES = (slice(0, 1), slice(1, 3), slice(3, 10))
# Operations that a server may not have, or that reach out of the model.
_FORBIDDEN = ("PyFunc", "EagerPyFunc", "PyFuncStateless", "ReadFile", "WriteFile")


def main(folder):
    folder = Path(folder)
    _check_operations(folder / "saved_model" / "saved_model.pb")
    loaded = tf.saved_model.load(folder / "saved_model")
    inputs = np.load(folder / "inputs.npz", allow_pickle=False)
    outputs = np.load(folder / "outputs.npz", allow_pickle=False)
    settings = np.load(folder / "settings.npz", allow_pickle=False)
    if set(outputs.files) != set(loaded.signatures):
        raise RuntimeError(
            f"There are examples of {outputs.files} for the signatures "
            f"{list(loaded.signatures)}."
        )
    for signature, expected in outputs.items():
        for examples in _BATCHES:
            request = _request(inputs, signature, examples)
            answers = loaded.signatures[signature](**request)
            where = f"of {signature} at batch size {len(expected[examples])}"
            _check_answers(answers, expected[examples], settings, where)
    if "keras_perceiver" in sys.modules:
        raise RuntimeError("The check must see the SavedModel alone.")


def _request(inputs, signature, examples):
    request = {}
    for key in inputs.files:
        if key.startswith(f"{signature}/inputs/"):
            request[key.rsplit("/", 1)[1]] = tf.constant(inputs[key][examples])
        elif key.startswith(f"{signature}/base64/"):
            files = [base64.b64decode(text) for text in inputs[key][examples]]
            request[key.rsplit("/", 1)[1]] = tf.constant(files)
    return request


def _check_answers(answers, expected, settings, where):
    tolerance = float(settings["tolerance"])
    answers = {name: x.numpy() for name, x in answers.items()}
    outputs = answers.get("logits", answers.get("latents"))
    _check_close(outputs, expected, tolerance, f"The outputs {where}")
    if "logits" not in answers:
        return
    wide = outputs.astype("float64")
    if settings["sigmoid"]:
        probabilities = 1 / (1 + np.exp(-wide))
    else:
        powers = np.exp(wide - wide.max(-1, keepdims=True))
        probabilities = powers / powers.sum(-1, keepdims=True)
    _check_close(
        answers["probabilities"], probabilities, tolerance, f"The probabilities {where}"
    )
    named = [name.decode() for name in answers["classes"]]
    best = settings["labels"][outputs.argmax(-1)].tolist()
    if named != best:
        raise AssertionError(f"The classes {where} are {named} and not {best}.")


def _check_close(actual, expected, tolerance, what):
    # Sums of large numbers have errors of their size, also where they come out small.
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(
        actual,
        expected,
        rtol=0,
        atol=tolerance * scale,
        err_msg=f"{what} differ from model.predict: the SavedModel differs.",
    )


def _check_operations(path):
    from tensorflow.core.protobuf import saved_model_pb2

    (meta_graph,) = saved_model_pb2.SavedModel.FromString(path.read_bytes()).meta_graphs
    graph = meta_graph.graph_def
    functions = [function.node_def for function in graph.library.function]
    # What restores the weights when the model is loaded is in the graph itself.
    found = {node.op for nodes in functions for node in nodes} & set(_FORBIDDEN)
    if found:
        raise RuntimeError(f"The SavedModel holds operations {sorted(found)}.")


if __name__ == "__main__":
    main(*sys.argv[1:])
