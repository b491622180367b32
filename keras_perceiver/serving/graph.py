"""The SavedModel and its signatures."""

import contextlib

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.saved_model import fingerprinting_utils

from keras_perceiver.layers.attention import use_portable_kernels
from keras_perceiver.serving import encoded
from keras_perceiver.serving.requests import checked_inputs
from keras_perceiver.serving.weights import stored

DEFAULT = "serving_default"


def save(model, path, signatures, weights):
    """Writes a SavedModel.

    Args:
        model: `Perceiver` or a task, on the TensorFlow backend.
        path: Path of the SavedModel's folder.
        signatures: Dict from signature names to the preprocessors of inputs that are
            files, a dict by modality name.
        weights: String, how weights are stored.
    """
    module = tf.Module()
    call, module.weights = _call_with(model, weights)
    call = tf.function(call)  # traced once, for all signatures

    def answer(arrays):
        arrays = checked_inputs(model, arrays)
        inputs = (
            arrays if isinstance(model.input, dict) else next(iter(arrays.values()))
        )
        return model.serving_outputs(call(inputs))

    functions, shapes = {}, {}
    for name, preprocessors in signatures.items():
        table = input_table(model, preprocessors)
        # Shapes are unknown, so that the graph checks them. A server does not check
        # them, and TensorFlow would remove checks of known shapes from the graph.
        specs = {k: tf.TensorSpec(None, dtype, k) for k, (dtype, _) in table.items()}
        function = tf.function(_of_files(answer, model, preprocessors))
        with use_portable_kernels():
            functions[name] = function.get_concrete_function(**specs)
        shapes[name] = {k: shape for k, (_, shape) in table.items()}
    # A server computes no gradients, whose functions are large for attention.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    with _warnings_only():
        tf.saved_model.save(module, str(path), signatures=functions, options=options)
    _name_shapes(path, shapes)


@contextlib.contextmanager
def _warnings_only():
    """Context without TensorFlow's information about files, which are moved later."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("WARNING")
    try:
        yield
    finally:
        logger.setLevel(level)


def input_table(model, preprocessors):
    """Returns the dtype and shape of the inputs of a signature by name."""
    table = {}
    for name, modality in model.modalities.items():
        if name in preprocessors:
            table[name] = "string", (None,)
            continue
        table[name] = modality.input_dtype, (None, *modality.input_shape)
        if modality.use_mask:
            table[f"{name}_mask"] = "bool", (None, *modality.mask_shape)
    return table | {name: ("int32", (None, None)) for name in model.index_inputs}


def _of_files(answer, model, preprocessors):
    def function(**inputs):
        arrays = dict(inputs)
        for name, preprocessor in preprocessors.items():
            use_mask = model.modalities[name].use_mask
            arrays |= encoded.decode(name, inputs[name], preprocessor, use_mask)
        return answer({name: arrays[name] for name in input_table(model, {})})

    return function


def _call_with(model, weights):
    """Returns the model as a function, and the variables that it uses."""
    if weights == "float32":
        return lambda x: model(x, training=False), [v.value for v in model.variables]
    pairs = []
    for variable in model.weights:
        smaller, scale = stored(keras.ops.convert_to_numpy(variable), weights)
        pairs.append(
            tuple(tf.Variable(x, trainable=False) for x in (smaller, np.asarray(scale)))
        )

    def call(x):
        # Per request, to keep the disk and memory footprint small.
        values = [
            (v, tf.cast(smaller, v.dtype) * tf.cast(scale, v.dtype))
            for v, (smaller, scale) in zip(model.weights, pairs, strict=True)
        ]
        with keras.StatelessScope(state_mapping=values):
            return model(x, training=False)

    return call, [x for pair in pairs for x in pair]


def _name_shapes(path, shapes):
    """Declares the valid shapes in the signatures, as information for clients."""
    file = path / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    (meta_graph,) = saved_model.meta_graphs
    for name, of_signature in shapes.items():
        inputs = meta_graph.signature_def[name].inputs
        for key, shape in of_signature.items():
            inputs[key].tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())
    file.write_bytes(saved_model.SerializeToString(deterministic=True))
    # The fingerprint of the modified file.
    fingerprinting_utils.write_fingerprint(str(path))
