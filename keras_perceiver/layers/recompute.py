"""Rematerialization: keeping the arguments of a function, and recomputing the rest."""

import keras
from keras import ops


def recompute(function, x, *tensors):
    """Returns `function(x, *tensors)`, keeping only these tensors for the gradient.

    Everything else is recomputed from them in the backward pass. So the function must
    not draw random numbers, and everything that needs a gradient must be an argument.

    Args:
        function: Callable that takes the tensors and returns a tensor or a tuple of
            tensors.
        x: Tensor from which the intermediate results are computed.
        *tensors: Additional tensors, such as weights.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        return keras.remat(function)(x, *tensors)
    # Not `keras.remat`: on JAX, nothing in it makes recomputation wait for the
    # gradient. On TensorFlow, it adds a zero to every argument for that, which copies
    # all weights.
    run = {"jax": _recompute_jax, "tensorflow": _recompute_tensorflow}[backend]
    return run(function, x, *tensors)


def keep_input_only(function, layers, x, training):
    """Returns `function(x)`, without keeping norms and activations for the gradient.

    They are cheap to recompute, and take half of the memory of training. The matrix
    products that follow are not computed twice: their results are not needed, so
    compilers eliminate them. PyTorch does not do so in eager mode, so there everything
    is kept.

    Args:
        function: Callable that takes a tensor and calls no layers other than `layers`.
        layers: Layers that own all weights that `function` uses.
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
    """Calls a layer with tensors in place of its weights."""
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
    """Returns `tensor`, which in a compiled program is delayed until the gradient exists.

    Otherwise a compiler would reuse the results of the forward pass, and so keep them
    in memory, or recompute everything before the backward pass starts.
    """
    if keras.backend.backend() == "jax":
        # XLA removes an `optimization_barrier` before it schedules. It cannot remove
        # this product, since zero times infinity would not be zero.
        zero = 0 * gradient.ravel()[0]
        return tensor + zero.astype(tensor.dtype)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.control_dependencies([gradient]):
            return tf.identity(tensor)
    return tensor


def accumulate_gradients_eagerly(x, tensors):
    """Returns `x`, `tensors` for one use, and `tensors` for all later uses.

    Backend-specific path: by default, TensorFlow keeps the gradients of all uses of a
    weight and adds them at the end. Here the gradient of a use is added to the sum over
    later uses before the gradient of `x` is passed on to earlier ones.
    """
    import tensorflow as tf

    @tf.custom_gradient
    def run(x, *tensors):
        def backward(d_x, *gradients):
            d_current, d_later = gradients[: len(tensors)], gradients[len(tensors) :]
            sums = [a + b for a, b in zip(d_current, d_later, strict=True)]
            # Otherwise TensorFlow's graph optimizer would merge all sums into one.
            sums = [tf.raw_ops.Snapshot(input=x) for x in sums]
            with tf.control_dependencies(sums):
                return tf.identity(d_x), *sums

        # Each output is a separate tensor with a separate gradient.
        return tuple(map(tf.identity, (x, *tensors, *tensors))), backward

    x, *tensors = run(x, *tensors)
    half = len(tensors) // 2
    return x, tensors[:half], tensors[half:]
