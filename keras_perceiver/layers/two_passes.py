"""Functions with a custom backward pass on each backend.

An object with both passes has `names` (of the tensors other than the query),
`names_with_gradient`, `forward(query, *tensors)`, which returns outputs and a residual,
and `backward(query, tensors, outputs, residual, gradient, wanted)`, which returns the
gradients of the query and of the tensors named in `wanted`.
"""

import keras

from keras_perceiver.layers.portable import custom_gradient
from keras_perceiver.layers.recompute import after


def run_two_passes(passes, query, *tensors):
    """Returns the outputs of `passes.forward`, with the gradients of `passes.backward`."""
    if keras.backend.backend() == "jax":
        return _run_jax(passes, query, *tensors)
    if keras.backend.backend() == "tensorflow":
        return _run_tensorflow(passes, query, *tensors)
    return _run_torch(passes, query, *tensors)


def _run_jax(passes, query, *tensors):
    """Backend-specific path: JAX knows while tracing which gradients are needed."""
    import jax

    @jax.custom_vjp
    def run(query, *tensors):
        return passes.forward(query, *tensors)[0]

    def forward(query, *tensors):
        wanted = tuple(
            # A pytree without leaves, so that it reaches `backward` as it is.
            () if tensor.perturbed and name in passes.names_with_gradient else None
            for name, tensor in zip(passes.names, tensors, strict=True)
        )
        query, *tensors = (x.value for x in (query, *tensors))
        outputs, residual = passes.forward(query, *tensors)
        return outputs, (query, tensors, outputs, residual, wanted)

    def backward(residuals, gradient):
        *residuals, wanted = residuals
        if isinstance(gradient, jax.custom_derivatives.SymbolicZero):
            return (None,) * (1 + len(wanted))
        wanted = [n for n, w in zip(passes.names, wanted, strict=True) if w is not None]
        query, *rest = residuals
        # Otherwise a single chunk would be merged with the forward pass.
        query = after(gradient, query)
        d_query, found = passes.backward(query, *rest, gradient, wanted)
        found = dict(zip(wanted, found, strict=True))
        return (d_query, *(found.get(name) for name in passes.names))

    run.defvjp(forward, backward, symbolic_zeros=True)
    return run(query, *tensors)


def _run_tensorflow(passes, query, *tensors):
    """Backend-specific path: two backward loops, since TensorFlow prunes whole loops.

    Which gradients will be used is not known here. The gradients of the inputs have a
    separate loop, which is pruned if its results are not used.
    """

    @custom_gradient
    def run(query, *tensors):
        outputs, residual = passes.forward(query, *tensors)

        def backward(gradient):
            # Otherwise a single chunk would be merged with the forward pass.
            late_query, *late = (after(gradient, x) for x in (query, *tensors))
            arguments = (late_query, late, outputs, residual, gradient)
            d_query, _ = passes.backward(*arguments, wanted=())
            wanted = passes.names_with_gradient
            _, found = passes.backward(*arguments, wanted)
            found = dict(zip(wanted, found, strict=True))
            return (d_query, *(found.get(name) for name in passes.names))

        return outputs, backward

    return run(query, *tensors)


if keras.backend.backend() == "torch":
    # Backend-specific path: PyTorch knows which gradients are needed.
    import torch

    class _TorchFunction(torch.autograd.Function):
        @staticmethod
        def forward(context, passes, query, *tensors):
            outputs, residual = passes.forward(query, *tensors)
            context.passes = passes
            context.save_for_backward(query, outputs, residual, *tensors)
            return outputs

        @staticmethod
        def backward(context, gradient):
            passes = context.passes
            query, outputs, residual, *tensors = context.saved_tensors
            needed = zip(passes.names, context.needs_input_grad[2:], strict=True)
            wanted = [name for name, is_needed in needed if is_needed]
            d_query, found = passes.backward(
                query, tensors, outputs, residual, gradient, wanted
            )
            found = dict(zip(wanted, found, strict=True))
            return (None, d_query, *(found.get(name) for name in passes.names))

    # `torch.compile` would unroll the loop over chunks, which takes minutes.
    @torch.compiler.disable
    def _run_torch(passes, query, *tensors):
        return _TorchFunction.apply(passes, query, *tensors)
