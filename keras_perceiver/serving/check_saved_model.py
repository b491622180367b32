"""Compares a SavedModel with recorded outputs: `check_saved_model.py FOLDER`.

It runs as a script in a separate process, so that it only has the SavedModel, as a
server has, without the Python code that created it.
"""

import base64
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

# Batches of one, two and seven examples.
_BATCHES = (slice(0, 1), slice(1, 3), slice(3, 10))
# Operations that a server may lack, or that access files or Python.
_FORBIDDEN = ("PyFunc", "EagerPyFunc", "PyFuncStateless", "ReadFile", "WriteFile")


def main(folder):
    folder = Path(folder)
    _check_operations(folder / "saved_model" / "saved_model.pb")
    loaded = tf.saved_model.load(folder / "saved_model")
    inputs = np.load(folder / "inputs.npz", allow_pickle=False)
    outputs = np.load(folder / "outputs.npz", allow_pickle=False)
    settings = np.load(folder / "settings.npz", allow_pickle=False)
    names = {key.split("/")[0] for key in outputs.files}
    if names != set(loaded.signatures):
        raise RuntimeError(
            f"Received examples of {sorted(names)} for the signatures "
            f"{list(loaded.signatures)}."
        )
    for signature, function in loaded.signatures.items():
        prefix = f"{signature}/"
        for examples in _BATCHES:
            answers = function(**_request(inputs, signature, examples))
            expected = {
                key.removeprefix(prefix): outputs[key][examples]
                for key in outputs.files
                if key.startswith(prefix)
            }
            where = f"of {signature}, examples {examples.start} to {examples.stop - 1},"
            _check_answers(answers, expected, float(settings["tolerance"]), where)
    if "keras_perceiver" in sys.modules:
        raise RuntimeError("The check must not import keras_perceiver.")


def _request(inputs, signature, examples):
    request = {}
    for key in inputs.files:
        if key.startswith(f"{signature}/inputs/"):
            request[key.rsplit("/", 1)[1]] = tf.constant(inputs[key][examples])
        elif key.startswith(f"{signature}/base64/"):
            files = [base64.b64decode(text) for text in inputs[key][examples]]
            request[key.rsplit("/", 1)[1]] = tf.constant(files)
    return request


def _check_answers(answers, expected, tolerance, where):
    names = {name for name in expected if "/" not in name}
    if names != set(answers):
        raise AssertionError(
            f"The outputs {where} are {sorted(answers)} instead of {sorted(names)}."
        )
    for name in names:
        answer, wanted = answers[name].numpy(), expected[name]
        if wanted.dtype.kind == "f":
            _check_close(answer, wanted, tolerance, f"The {name} {where}")
            continue
        if answer.dtype == object:  # text
            answer = np.array([text.decode() for text in answer.flat])
        # Rounding may change other outputs.
        is_sure = expected[f"{name}/is_sure"]
        if (answer != wanted)[is_sure].any():
            raise AssertionError(
                f"The {name} {where} are {answer.tolist()} instead of {wanted.tolist()}: "
                "the SavedModel differs."
            )


def _check_close(actual, expected, tolerance, what):
    # Relative to the largest output, since small outputs may be sums of large numbers.
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
    # Nodes of the graph itself, outside of functions, restore the weights.
    found = {node.op for nodes in functions for node in nodes} & set(_FORBIDDEN)
    if found:
        raise RuntimeError(f"The SavedModel contains the operations {sorted(found)}.")


if __name__ == "__main__":
    main(*sys.argv[1:])
