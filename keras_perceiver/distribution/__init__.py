"""Training on several devices by `tf.distribute` and `keras.distribution`."""

from keras_perceiver.distribution.distribution import Distribution, get_distribution
from keras_perceiver.distribution.engines import ENGINES, virtual_devices
from keras_perceiver.distribution.padding import predict_on_batch
from keras_perceiver.distribution.processes import check_equal, exit_process, initialize

__all__ = [
    "ENGINES",
    "Distribution",
    "check_equal",
    "exit_process",
    "get_distribution",
    "initialize",
    "predict_on_batch",
    "virtual_devices",
]
