"""Models for TF Serving: signatures, checks of requests, warm-up, round trip, a client.

What runs under TensorFlow only (`graph`, `requests`, `encoded`, `warmup`, `formats`) is
imported by the process that exports, never by the package. The client and the checks of
arguments need no Keras, so the package imports its modules when they are first used.
"""

import importlib

_MODULES = {
    "GrpcClient": "client",
    "RestClient": "client",
    "ServingError": "client",
    "check_serving": "versions",
    "export_file": "export",
    "export_for_serving": "export",
}
__all__ = sorted(_MODULES)


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__():
    return sorted({*globals(), *__all__})
