"""Distribution: one switch over tf.distribute and keras.distribution."""

from keras_perceiver.distribution.distribution import Distribution, distribution_of
from keras_perceiver.distribution.engines import ENGINES, virtual_devices
from keras_perceiver.distribution.padding import predict_on_batch
from keras_perceiver.distribution.processes import check_equal, initialize, leave

__all__ = [
    "ENGINES",
    "Distribution",
    "check_equal",
    "distribution_of",
    "initialize",
    "leave",
    "predict_on_batch",
    "virtual_devices",
]
