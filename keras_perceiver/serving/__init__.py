"""Models for TF Serving: signatures, checks of requests, warm-up, round trip.

What runs under TensorFlow only (`graph`, `requests`, `encoded`, `warmup`, `formats`) is
imported by the process that exports, never by the package.
"""

from keras_perceiver.serving.export import (
    export_file,
    export_for_serving,
)
from keras_perceiver.serving.versions import check_serving

__all__ = [
    "check_serving",
    "export_file",
    "export_for_serving",
]
