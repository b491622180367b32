"""Exports to ONNX and LiteRT by Keras' own exporters."""

import warnings

import numpy as np


def _to_onnx(model, path):
    _register_erfc()
    rng = np.random.default_rng(0)
    inputs = {}
    for name, modality in model.modalities.items():
        inputs[name] = modality.random_inputs(rng, 1)
        if modality.use_mask:
            shape = inputs[name].shape[: 1 + len(modality.mask_shape)]
            inputs[f"{name}_mask"] = np.ones(shape, "bool")
    for name in model.index_inputs:
        inputs[name] = np.zeros((1, 1), "int32")
    # Keras exports the signature of the last call to ONNX.
    model(inputs if isinstance(model.input, dict) else inputs[model.inputs[0].name])
    with warnings.catch_warnings():
        # tf2onnx uses a name that NumPy is going to redefine.
        warnings.simplefilter("ignore", FutureWarning)
        model.export(path, format="onnx", verbose=False)


def _register_erfc():
    """Registers a handler for Erfc, which the exact GELU uses, with tf2onnx."""
    from tf2onnx.handler import tf_op

    @tf_op("Erfc")
    class _Erfc:
        @classmethod
        def version_9(cls, ctx, node, **kwargs):
            dtype = ctx.get_dtype(node.output[0])
            shape = ctx.get_shape(node.output[0])
            ctx.remove_node(node.name)
            one = ctx.make_const(f"{node.name}_one", _one(ctx, dtype))
            erf = ctx.make_node("Erf", node.input, dtypes=[dtype], shapes=[shape])
            ctx.make_node(
                "Sub",
                [one.output[0], erf.output[0]],
                name=node.name,
                outputs=node.output,
                dtypes=[dtype],
                shapes=[shape],
            )


def _one(ctx, dtype):
    from tf2onnx.utils import map_onnx_to_numpy_type

    return np.array(1, map_onnx_to_numpy_type(dtype))


def _to_litert(model, path):
    model.export(path, format="litert", verbose=False)


EXPORT = {"onnx": _to_onnx, "litert": _to_litert}
