"""Configuration files for TF Serving."""

from keras_perceiver._names import in_protobuf

# Sizes of the batches that a server forms, and of its warm-up requests, so that all are
# warmed up. Compute grows with the batch size, so larger batches would gain little.
BATCH_SIZES = (1, 2, 4, 8)


def models_config(name):
    """Returns the text of `models.config`, for `tensorflow_model_server`."""
    return f"""\
# tensorflow_model_server --model_config_file={in_protobuf(f"/models/{name}/models.config")}
model_config_list {{
  config {{
    name: {in_protobuf(name)}
    base_path: {in_protobuf(f"/models/{name}")}
    model_platform: "tensorflow"
  }}
}}
"""


def batching_config():
    """Returns the text of `batching.config`, for `tensorflow_model_server`."""
    sizes = "".join(f"allowed_batch_sizes: {size}\n" for size in BATCH_SIZES)
    return f"""\
# tensorflow_model_server --enable_batching --batching_parameters_file=... An invalid
# request is an error for all requests in its batch.
max_batch_size {{ value: {BATCH_SIZES[-1]} }}
batch_timeout_micros {{ value: 1000 }}
max_enqueued_batches {{ value: 100 }}
{sizes}"""
