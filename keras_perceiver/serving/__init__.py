"""Exports for TF Serving, ONNX Runtime and LiteRT, and a client of TF Serving.

Modules that need the TensorFlow backend (`graph`, `requests`, `encoded`, `warmup`,
`formats`) are imported by the process that exports. The client and argument checks do not
need Keras, so all modules are imported lazily.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from keras_perceiver.serving.client import GrpcClient as GrpcClient
    from keras_perceiver.serving.client import RestClient as RestClient
    from keras_perceiver.serving.client import ServingError as ServingError
    from keras_perceiver.serving.export import export_file as export_file
    from keras_perceiver.serving.export import export_for_serving as export_for_serving
    from keras_perceiver.serving.manifest import verify_version as verify_version
    from keras_perceiver.serving.versions import check_serving as check_serving

_MODULES = {
    "GrpcClient": "client",
    "RestClient": "client",
    "ServingError": "client",
    "check_serving": "versions",
    "export_file": "export",
    "export_for_serving": "export",
    "verify_version": "manifest",
}
__all__ = sorted(_MODULES)


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__():
    return sorted({*globals(), *__all__})
