"""Builds tests/serving/serve_in_c.c, and sends requests to it."""

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

_SOURCE = Path(__file__).with_name("serve_in_c.c")
_TENSORFLOW = Path(tf.sysconfig.get_lib())


def build(folder):
    """Compiles the program against the libraries of the installed wheel.

    Returns:
        Path of the program.
    """
    program = folder / "serve_in_c"
    # The usual linker takes ten seconds for a library of a gigabyte.
    linker = ["-fuse-ld=gold"] if shutil.which("ld.gold") else []
    subprocess.run(
        [
            *("gcc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror"),
            *("-isystem", tf.sysconfig.get_include(), _SOURCE, "-o", program, *linker),
            *(f"-L{_TENSORFLOW}", "-l:libtensorflow_cc.so.2"),
            *("-l:libtensorflow_framework.so.2", f"-Wl,-rpath,{_TENSORFLOW}"),
        ],
        check=True,
    )
    return program


def signature_defs(saved_model):
    """Returns the signatures of a SavedModel by name, as a server reads them."""
    content = (saved_model / "saved_model.pb").read_bytes()
    (meta_graph,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    return meta_graph.signature_def


def run(program, saved_model, requests, num_calls=1):
    """Runs requests in a process without Python.

    Args:
        program: Path of the program.
        saved_model: Path of the SavedModel.
        requests: List of tuples of signature, dict of arrays or lists of bytes, and the
            name of a float output.
        num_calls: Integer, number of repetitions of each request.

    Returns:
        List of pairs of the flattened output and the median milliseconds per call, or of
        an error and `None`.
    """
    signatures = signature_defs(saved_model)
    file = program.with_name("requests")
    with file.open("wb") as out:
        for signature, inputs, output in requests:
            out.write(struct.pack("<I", len(inputs)))
            for name, value in inputs.items():
                out.write(_place(signatures[signature].inputs[name]))
                out.write(_tensor(value))
            out.write(_place(signatures[signature].outputs[output]))
    result = subprocess.run(
        [program, saved_model, file, str(num_calls)],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(result.stderr[-2000:])
    return [_answer(line) for line in result.stdout.splitlines()]


def _answer(line):
    kind, _, rest = line.partition(" ")
    if kind == "error":
        return rest, None
    milliseconds, *values = map(float, rest.split())
    return np.array(values), milliseconds


def _place(info):
    operation, _, index = info.name.rpartition(":")
    return _text(operation.encode()) + struct.pack("<I", int(index))


def _tensor(value):
    value = list(value) if isinstance(value, (list, tuple)) else np.asarray(value)
    if isinstance(value, list):
        shape, dtype = (len(value),), tf.string
        content = b"".join(map(_text, value))
    else:
        shape, dtype = value.shape, tf.as_dtype(value.dtype)
        content = _text(value.tobytes())
    header = struct.pack("<II", dtype.as_datatype_enum, len(shape))
    return header + struct.pack(f"<{len(shape)}q", *shape) + content


def _text(content):
    return struct.pack("<Q", len(content)) + content
