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
    if keras.backend.backend() != "tensorflow":
        return keras.remat(function)(x, *tensors)
    # Not keras.remat: TensorFlow's adds a zero to every argument to make it wait for the
    # gradient, and so copies all weights each time.
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
    """Returns `tensor`, in TensorFlow's graph only once the gradient is there.

    Else its optimizer finds that the forward pass has computed the same before, and
    keeps that for the backward pass.
    """
    if keras.backend.backend() != "tensorflow":
        return tensor
    import tensorflow as tf

    with tf.control_dependencies([gradient]):
        return tf.identity(tensor)
