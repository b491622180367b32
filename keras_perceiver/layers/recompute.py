"""Rematerialization: keep the arguments of a function, and compute the rest again."""

import keras
from keras import ops


def recompute(function, x, *tensors):
    """Returns `function(x, *tensors)` and keeps only these tensors for the gradient.

    Everything else is computed again from them in the backward pass. So the function
    must draw no random numbers, and whatever has a gradient must be among its arguments.

    Args:
        function: Callable of the tensors, that returns a tensor or a tuple of them.
        x: Tensor from which the intermediate results are computed.
        *tensors: Further tensors, such as weights.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        return keras.remat(function)(x, *tensors)
    # Not keras.remat: on JAX nothing in it makes the backward pass wait for the gradient;
    # TensorFlow's adds a zero to every argument for that, and so copies all weights.
    run = {"jax": _recompute_jax, "tensorflow": _recompute_tensorflow}[backend]
    return run(function, x, *tensors)


def keep_input_only(function, layers, x, training):
    """Returns `function(x)`, whose norms and activations are not kept for the gradient.

    They cost next to nothing to compute again, and half of the memory of training. The
    products that follow are not computed twice: their results are not needed again, and
    compilers leave them out. Torch does not in eager mode, so it keeps everything.

    Args:
        function: Callable of one tensor that calls no layers but `layers`.
        layers: Layers with all weights that `function` uses.
        x: Tensor.
        training: Boolean.
    """
    if not training or keras.backend.backend() == "torch":
        return function(x)
    variables = [weight for layer in layers for weight in layer.weights]

    def run(x, *weights):
        with keras.StatelessScope(zip(variables, weights, strict=True)):
            return function(x)

    return recompute(run, x, *[ops.copy(weight) for weight in variables])


def call_with(layer, weights, *args, **kwargs):
    """Calls a layer with these tensors in place of its weights."""
    with keras.StatelessScope(zip(layer.weights, weights, strict=True)):
        return layer(*args, **kwargs)


def _recompute_jax(function, x, *tensors):
    import jax

    @jax.custom_vjp
    def run(*tensors):
        return function(*tensors)

    def forward(*tensors):
        return function(*tensors), tensors

    def backward(tensors, gradients):
        x, *tensors = tensors
        late = after(jax.tree.leaves(gradients)[0], x)
        return jax.vjp(function, late, *tensors)[1](gradients)

    run.defvjp(forward, backward)
    return run(x, *tensors)


def _recompute_tensorflow(function, x, *tensors):
    import tensorflow as tf

    @tf.custom_gradient
    def run(x, *tensors):
        def backward(*gradients):
            late = (after(gradients[0], x), *tensors)
            # Quantized kernels have no gradient.
            floating = [i for i, tensor in enumerate(late) if tensor.dtype.is_floating]
            with tf.GradientTape() as tape:
                tape.watch([late[i] for i in floating])
                outputs = function(*late)
            found = tape.gradient(outputs, [late[i] for i in floating], gradients)
            found = dict(zip(floating, found, strict=True))
            return [found.get(i) for i in range(len(late))]

        return function(x, *tensors), backward

    return run(x, *tensors)


def after(gradient, tensor):
    """Returns `tensor`, in a compiled program only once the gradient is there.

    Else a compiler finds that the forward pass has computed the same before and keeps
    that for the backward pass, or computes all again at once before it begins.
    """
    if keras.backend.backend() == "jax":
        # XLA drops an `optimization_barrier` before it decides on the order. It must
        # compute this: zero times infinity would not be zero.
        zero = 0 * gradient.ravel()[0]
        return tensor + zero.astype(tensor.dtype)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.control_dependencies([gradient]):
            return tf.identity(tensor)
    return tensor


def accumulate_gradients_eagerly(x, tensors):
    """Returns `x`, `tensors` for one use, and `tensors` for all later uses.

    Backend-specific path for TensorFlow: left to itself it goes back through all uses of
    a weight and adds up the weight's gradients at the end, all at once. Here the gradient
    of a use is added to those of later uses before that of `x` goes on to earlier ones.
    """
    import tensorflow as tf

    @tf.custom_gradient
    def run(x, *tensors):
        def backward(d_x, *gradients):
            d_current, d_later = gradients[: len(tensors)], gradients[len(tensors) :]
            sums = [a + b for a, b in zip(d_current, d_later, strict=True)]
            # Else TensorFlow's optimizer makes one sum of all sums.
            sums = [tf.raw_ops.Snapshot(input=x) for x in sums]
            with tf.control_dependencies(sums):
                return tf.identity(d_x), *sums

        # Each output is a tensor of its own, with a gradient of its own.
        return tuple(map(tf.identity, (x, *tensors, *tensors))), backward

    x, *tensors = run(x, *tensors)
    half = len(tensors) // 2
    return x, tensors[:half], tensors[half:]
