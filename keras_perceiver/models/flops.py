"""FLOPs of a model by the paper's convention."""

import math

from keras_perceiver._checks import check_positive
from keras_perceiver.models.encoder import Perceiver
from keras_perceiver.models.tasks import Task


def flops(model, num_inputs=None):
    """Counts the floating-point operations of one forward pass of one example.

    The convention of the paper's tables: two per multiplication-and-addition of every
    matrix product of the plain algorithm (all keys and values computed), nothing for
    biases, norms, activations, softmax and position features. It measures the work a
    model asks for; the forms of attention in this package may do less.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), tables 5 and 6.

    Args:
        model: `Perceiver`, or a task such as `PerceiverClassifier`.
        num_inputs: Integer, number of input elements of the example. Defaults to that
            of the longest example; must be given where the model knows none.

    Returns:
        Integer, number of floating-point operations.

    Raises:
        TypeError: if `model` is of another class.
        ValueError: if the number of inputs is not known.

    Example:

    >>> model = PerceiverClassifier.from_preset("digits")
    >>> flops(model) > flops(model.encoder)
    True
    """
    if isinstance(model, Task):
        return flops(model.encoder, num_inputs) + 2 * math.prod(model.head.kernel.shape)
    if not isinstance(model, Perceiver):
        raise TypeError(
            "`model` must be a `Perceiver` or a task. Received: "
            f"model={model!r} of type {type(model).__name__}. Pass one of these."
        )
    if num_inputs is None:
        lengths = {k: m.num_inputs for k, m in model.byte_array.modalities.items()}
        unknown = [name for name, length in lengths.items() if length is None]
        if unknown:
            raise ValueError(
                "`num_inputs` must be given where any length will do. Received: "
                f"num_inputs=None, and {unknown} may have any length. "
                "Pass the number of elements of all modalities together."
            )
        num_inputs = sum(lengths.values())
    check_positive(num_inputs=num_inputs)
    return 2 * model.macs(num_inputs)
