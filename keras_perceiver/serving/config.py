"""Settings for the server, written beside the versions."""

from keras_perceiver._names import in_protobuf

# Of the batches that a server makes of requests, and that it warms up with: none is new
# to it. Compute grows with the batch, so there is little to win beyond.
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
# tensorflow_model_server --enable_batching --batching_parameters_file=...
# One bad request is an error of all that were put in a batch with it.
max_batch_size {{ value: {BATCH_SIZES[-1]} }}
batch_timeout_micros {{ value: 1000 }}
max_enqueued_batches {{ value: 100 }}
{sizes}"""
