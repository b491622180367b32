"""Warm-up requests, which a server runs when it loads a model."""

import math

import numpy as np
import tensorflow as tf

from keras_perceiver.serving.graph import input_table

# The path where TF Serving expects the file.
NAME = "assets.extra/tf_serving_warmup_requests"


def write(path, model, signatures, model_name, batch_sizes):
    """Writes one request per signature and batch size.

    Args:
        path: Path of the SavedModel.
        model: `Perceiver` or a task.
        signatures: Dict from signature names to the preprocessors of inputs that are
            files, a dict by modality name.
        model_name: String, the name of the model on the server.
        batch_sizes: Sequence of integers.
    """
    # An optional dependency, which `export_for_serving` has checked.
    from tensorflow_serving.apis import prediction_log_pb2

    file = path / NAME
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for signature, preprocessors in signatures.items():
            for size in batch_sizes:
                log = prediction_log_pb2.PredictionLog()
                request = log.predict_log.request
                request.model_spec.name = model_name
                request.model_spec.signature_name = signature
                tensors = _request(model, preprocessors, size)
                for name, tensor in tensors.items():
                    request.inputs[name].CopyFrom(tensor)
                writer.write(log.SerializeToString(deterministic=True))


def _request(model, preprocessors, size):
    """Returns a batch that repeats one valid example."""
    table = input_table(model, preprocessors)
    tensors = {name: _constant(0, "int32", (size, 1)) for name in model.index_inputs}
    for name, modality in model.modalities.items():
        if name in preprocessors:
            _, content = preprocessors[name].random_file(
                np.random.default_rng(0), modality.example_shape[0]
            )
            tensors[name] = tf.make_tensor_proto([content] * size, "string", (size,))
            continue
        shape = (size, *modality.example_shape)
        # A single value for the whole shape takes little space.
        tensors[name] = _constant(0, table[name][0], shape)
        if modality.use_mask:
            mask_shape = shape[: 1 + len(modality.mask_shape)]
            tensors[f"{name}_mask"] = _constant(True, "bool", mask_shape)
    return tensors


def _constant(value, dtype, shape):
    proto = tf.make_tensor_proto(value, dtype, ())
    proto.tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())
    if math.prod(shape) == 0:
        raise ValueError(f"An example must not be empty. Received: shape {shape}.")
    return proto
