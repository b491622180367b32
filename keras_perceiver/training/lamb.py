"""LAMB as the paper uses it."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_perceiver")
class Lamb(keras.optimizers.Lamb):
    """LAMB with weight decay inside the trust ratio, the paper's optimizer.

    The update of each weight is Adam's plus the weight decay, scaled to the norm of the
    weight times the learning rate. `keras.optimizers.Lamb` applies weight decay outside
    the trust ratio. Weights with one axis (biases, scales and offsets of norms) are not
    decayed; `exclude_from_weight_decay` excludes more.

    Reference:
        [You et al., 2020](https://arxiv.org/abs/1904.00962), algorithm 2; the same as
        `optax.lamb`.

    Args:
        learning_rate: Float or `keras.optimizers.schedules.LearningRateSchedule`. The
            paper uses 4e-3 for ImageNet and 1e-3 for ModelNet40.
        beta_1: Float, decay rate of the first moment of the gradients.
        beta_2: Float, decay rate of the second moment.
        epsilon: Float, added to the root of the second moment.
        weight_decay: Float, factor of the weight in its update.
        name: String.
        **kwargs: Arguments of `keras.optimizers.Optimizer`, such as `global_clipnorm`
            and `gradient_accumulation_steps`.

    Raises:
        ValueError: if `weight_decay` is negative.

    Example:

    >>> optimizer = Lamb(4e-3, weight_decay=0.1, global_clipnorm=10.0)
    >>> weight = keras.Variable([[3.0, 4.0]])
    >>> optimizer.apply([keras.ops.array([[0.1, 0.1]])], [weight])
    >>> bool(keras.ops.all(weight < [[3.0, 4.0]]))
    True
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        weight_decay: float = 0.0,
        name: str = "lamb",
        **kwargs: Any,
    ) -> None:
        if weight_decay is not None and weight_decay < 0:
            raise ValueError(
                "`weight_decay` must not be negative. Received: "
                f"weight_decay={weight_decay}. Weights would grow; set it to 0 or more."
            )
        super().__init__(
            learning_rate=learning_rate,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            weight_decay=weight_decay,
            name=name,
            **kwargs,
        )

    def _apply_weight_decay(self, variables):
        """Does nothing: `update_step` applies weight decay."""

    def update_step(self, gradient, variable, learning_rate):
        dtype = variable.dtype
        gradient = ops.cast(gradient, dtype)
        index = self._get_variable_index(variable)
        mean, square = self._momentums[index], self._velocities[index]
        self.assign_add(mean, (1 - self.beta_1) * (gradient - mean))
        self.assign_add(square, (1 - self.beta_2) * (ops.square(gradient) - square))
        step = ops.cast(self.iterations + 1, dtype)
        mean = mean / (1 - ops.power(ops.cast(self.beta_1, dtype), step))
        square = square / (1 - ops.power(ops.cast(self.beta_2, dtype), step))
        update = mean / (ops.sqrt(square) + self.epsilon)
        is_decayed = len(variable.shape) > 1 and self._use_weight_decay(variable)
        if self.weight_decay and is_decayed:
            update = update + self.weight_decay * variable
        weight_norm, update_norm = _norm(variable), _norm(update)
        is_usable = (weight_norm > 0) & (update_norm > 0)
        update_norm = ops.where(is_usable, update_norm, 1)
        ratio = ops.where(is_usable, weight_norm / update_norm, 1)
        self.assign_sub(variable, ops.cast(learning_rate, dtype) * ratio * update)


def _norm(x):
    return ops.sqrt(ops.sum(ops.square(x)))
