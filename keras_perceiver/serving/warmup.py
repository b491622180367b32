"""Requests that a server sends itself before it answers the first of others."""

import math

import tensorflow as tf

from keras_perceiver.data import ImageFiles
from keras_perceiver.serving.graph import input_table

# Where TF Serving looks for it.
NAME = "assets.extra/tf_serving_warmup_requests"


def write(path, modalities, readers, model_name, batch_sizes):
    """Writes one request for every signature and batch size.

    Args:
        path: Path of the SavedModel.
        modalities: Dict of modality layers by name.
        readers: Dict from names of signatures to dicts of readers by modality.
        model_name: String, the name that clients ask for.
        batch_sizes: Sequence of integers.
    """
    # An extra; `export_for_serving` has checked that it is installed.
    from tensorflow_serving.apis import prediction_log_pb2

    file = path / NAME
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for signature, of_signature in readers.items():
            for size in batch_sizes:
                log = prediction_log_pb2.PredictionLog()
                request = log.predict_log.request
                request.model_spec.name = model_name
                request.model_spec.signature_name = signature
                tensors = _request(modalities, of_signature, size)
                for name, tensor in tensors.items():
                    request.inputs[name].CopyFrom(tensor)
                writer.write(log.SerializeToString(deterministic=True))


def _request(modalities, readers, size):
    """Returns inputs that are the same everywhere, which take next to no space."""
    table = input_table(modalities, readers)
    tensors = {}
    for name, modality in modalities.items():
        if name in readers:
            values = [_file(readers[name], modality)] * size
            tensors[name] = tf.make_tensor_proto(values, "string", (size,))
            continue
        shape = (size, *modality.example_shape)
        tensors[name] = _constant(0, table[name][0], shape)
        if modality.use_mask:
            mask_shape = shape[: 1 + len(modality.mask_shape)]
            tensors[f"{name}_mask"] = _constant(True, "bool", mask_shape)
    return tensors


def _constant(value, dtype, shape):
    # One value stands for all of the shape.
    proto = tf.make_tensor_proto(value, dtype, ())
    proto.tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())
    if math.prod(shape) == 0:
        raise ValueError(f"An example must not be empty. Received: shape {shape}.")
    return proto


def _file(reader, modality):
    if isinstance(reader, ImageFiles):
        return tf.io.encode_png(tf.zeros(reader.shape, "uint8")).numpy()
    samples = tf.zeros((modality.num_samples, 1))
    return tf.audio.encode_wav(samples, reader.sample_rate).numpy()
