"""Rematerialisation: to keep the arguments of a function, and compute the rest again."""

import keras


def recompute(function, x, *tensors):
    """Returns `function(x, *tensors)`, of which the backward pass has only these tensors.

    What the function computes is computed again from them when the gradient comes. So it
    must draw no random numbers, and whatever has a gradient must be among its arguments.

    Args:
        function: Callable of the tensors, that returns a tensor or a tuple of them.
        x: Tensor on which all that is worth dropping depends.
        *tensors: Further tensors, such as weights.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        return keras.remat(function)(x, *tensors)
    # Not keras.remat: on JAX nothing in it makes the backward pass wait for the gradient;
    # TensorFlow's adds a zero to every argument for that, and so copies all weights.
    run = {"jax": _recompute_jax, "tensorflow": _recompute_tensorflow}[backend]
    return run(function, x, *tensors)


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
            late = after(gradients[0], x)
            with tf.GradientTape() as tape:
                tape.watch([late, *tensors])
                outputs = function(late, *tensors)
            return tape.gradient(outputs, [late, *tensors], gradients)

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


def hand_on(x, tensors):
    """Returns `x`, `tensors` for one use, and `tensors` for all later uses.

    Backend-specific path for TensorFlow: left to itself it goes back through all uses of
    a weight and adds up the weight's gradients at the end, all at once. Here the gradient
    of a use is added to those of later uses before that of `x` goes on to earlier ones.
    """
    import tensorflow as tf

    @tf.custom_gradient
    def run(x, *tensors):
        def backward(of_x, *gradients):
            of_this, of_later = gradients[: len(tensors)], gradients[len(tensors) :]
            sums = [a + b for a, b in zip(of_this, of_later, strict=True)]
            # Else TensorFlow's optimizer makes one sum of all sums.
            sums = [tf.raw_ops.Snapshot(input=x) for x in sums]
            with tf.control_dependencies(sums):
                return tf.identity(of_x), *sums

        # Each output is a tensor of its own, with a gradient of its own.
        return tuple(map(tf.identity, (x, *tensors, *tensors))), backward

    x, *tensors = run(x, *tensors)
    half = len(tensors) // 2
    return x, tensors[:half], tensors[half:]
