"""Models for TF Serving: signatures, checks of requests, warm-up, round trip.

What runs under TensorFlow only (`graph`, `requests`, `encoded`, `warmup`, `formats`) is
imported by the process that exports, never by the package.
"""

from keras_perceiver.serving.export import (
    export_file,
    export_for_serving,
    file_signatures,
)
from keras_perceiver.serving.versions import (
    check_version,
    check_writable,
    next_version,
)

__all__ = [
    "check_version",
    "check_writable",
    "export_file",
    "export_for_serving",
    "file_signatures",
    "next_version",
]
