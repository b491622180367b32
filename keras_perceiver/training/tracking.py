"""An optimizer that tracks gradient norms and averages of the weights."""

from __future__ import annotations

import keras
from keras import ops

from keras_perceiver._checks import check_fraction


class OptimizerWrapper(keras.optimizers.Optimizer):
    """Base class of optimizers that leave the update of the weights to another one.

    Args:
        inner_optimizer: `keras.optimizers.Optimizer`.
        name: String.
    """

    def __init__(self, inner_optimizer, name):
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = inner_optimizer

    def build(self, variables):
        self.inner_optimizer.build(variables)
        super().build(variables)

    @property
    def variables(self):
        return self._variables + self.inner_optimizer.variables

    @property
    def learning_rate(self):
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def iterations(self):
        return self.inner_optimizer.iterations

    @property
    def trained_variables(self):
        """List of the variables that are updated."""
        return self._trainable_variables

    def count_step(self):
        """Counts a step of this optimizer. `iterations` are those of the inner one."""
        self._iterations.assign_add(1)

    @property
    def inner_optimizers(self):
        """List of the optimizers inside of this one, the last of which updates weights."""
        further = getattr(self.inner_optimizer, "inner_optimizers", [])
        return [self.inner_optimizer, *further]

    def scale_loss(self, loss):
        return self.inner_optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list):
        self.inner_optimizer.finalize_variable_values(var_list)

    def get_config(self):
        inner = keras.saving.serialize_keras_object(self.inner_optimizer)
        return {"inner_optimizer": inner, "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        inner = keras.saving.deserialize_keras_object(
            config["inner_optimizer"], custom_objects=custom_objects
        )
        return cls(**{**config, "inner_optimizer": inner})


@keras.saving.register_keras_serializable(package="keras_perceiver")
class TrackingOptimizer(OptimizerWrapper):
    """Wraps an optimizer to track gradient norms and an average of the weights.

    The average is `average * m + weight * (1 - m)` after every update, where `m` is the
    smaller of the momentum and `(1 + n) / (10 + n)` after `n` updates, so that the
    average of a short run has little of the initial weights. Keras' own `use_ema`
    shares one buffer between the average and the weight when `fit` ends; on JAX the next
    evaluation donates it, and both are lost.

    Args:
        inner_optimizer: `keras.optimizers.Optimizer` that updates the weights.
        ema_momentum: Float in `[0, 1)`, or `None` for no average.
        name: String.

    Raises:
        ValueError: if `ema_momentum` is out of range.

    Example:

    >>> optimizer = TrackingOptimizer(Lamb(4e-3), ema_momentum=0.999)
    >>> weight = keras.Variable([[3.0, 4.0]])
    >>> optimizer.apply([keras.ops.array([[0.6, 0.8]])], [weight])
    >>> round(optimizer.mean_gradient_norm(), 3)
    1.0
    """

    def __init__(
        self,
        inner_optimizer: keras.Optimizer,
        ema_momentum: float | None = None,
        name: str = "tracking_optimizer",
    ) -> None:
        super().__init__(inner_optimizer, name)
        if ema_momentum is not None:
            check_fraction(ema_momentum=ema_momentum)
        self.ema_momentum = ema_momentum
        self._averages: list = []

    def build(self, variables):
        # All replicas have the same values.
        def add(shape, name, layout=None):
            return self.add_variable(
                shape,
                "zeros",
                dtype="float32",
                aggregation="only_first_replica",
                layout=layout,
                name=name,
            )

        self._norm_sum = add((), "gradient_norm_sum")
        self._num_norms = add((), "num_gradient_norms")
        if self.ema_momentum is not None:
            self._averages = [
                add(
                    v.shape,
                    f"{v.path.replace('/', '_')}_average",
                    getattr(v, "_layout", None),  # split over devices like the weight
                )
                for v in variables
            ]
        super().build(variables)

    def apply(self, grads, trainable_variables=None):
        if not self.built:
            self.build(list(trainable_variables))
        innermost = self.inner_optimizers[-1]
        grads = _sums_over_replicas(innermost, grads)
        squares = [
            ops.sum(ops.square(ops.cast(g, "float32"))) for g in _not_none(grads)
        ]
        norm = ops.sqrt(sum(squares))
        self._norm_sum.assign_add(norm / (innermost.loss_scale_factor or 1))
        self._num_norms.assign_add(1)
        self.inner_optimizer.apply(grads, trainable_variables)
        self.count_step()
        self._update_averages()

    def _update_averages(self):
        if not self._averages:
            return
        accumulation_steps = self.inner_optimizers[-1].gradient_accumulation_steps or 1
        before = ops.cast(self._iterations // accumulation_steps - 1, "float32")
        momentum = ops.minimum(self.ema_momentum, (1 + before) / (10 + before))
        is_update = self._iterations % accumulation_steps == 0
        momentum = ops.where(is_update, momentum, 1.0)
        for average, variable in zip(
            self._averages, self._trainable_variables, strict=True
        ):
            value = ops.cast(variable, "float32")
            average.assign(momentum * average + (1 - momentum) * value)

    def mean_gradient_norm(self):
        """Returns the mean gradient norm since the last call.

        Norms are before clipping, and of micro-batches where those are accumulated.
        """
        total, number = (
            float(ops.convert_to_numpy(variable))
            for variable in (self._norm_sum, self._num_norms)
        )
        self._norm_sum.assign(0.0)
        self._num_norms.assign(0.0)
        return total / max(number, 1)

    def averages(self):
        """Returns the averages, or the weights where there are none, as NumPy arrays."""
        return _copies(self._averages or self._trainable_variables)

    def swap(self):
        """Exchanges the weights and their averages."""
        if self._averages:
            weights = _copies(self._trainable_variables)
            self.assign_weights(self.averages())
            for average, value in zip(self._averages, weights, strict=True):
                average.assign(value)

    def assign_weights(self, arrays):
        """Sets the weights to NumPy arrays, such as `averages()`."""
        for variable, value in zip(self._trainable_variables, arrays, strict=True):
            variable.assign(value)

    def get_config(self):
        return {**super().get_config(), "ema_momentum": self.ema_momentum}


def _sums_over_replicas(optimizer, gradients):
    """Returns the gradients summed over replicas, so that clipping sees their total.

    Backend-specific path for tf.distribute: Keras clips the gradients of each replica,
    and then sums them.
    """
    if keras.backend.backend() != "tensorflow":
        return gradients
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return gradients
    # The optimizer would sum them again.
    optimizer._all_reduce_sum_gradients = list
    sums = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, _not_none(gradients)))
    return [None if gradient is None else next(sums) for gradient in gradients]


def _not_none(gradients):
    return [gradient for gradient in gradients if gradient is not None]


def _copies(variables):
    return [ops.convert_to_numpy(variable.value).copy() for variable in variables]
