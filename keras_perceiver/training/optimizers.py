"""The paper's optimizer and learning rates, where Keras has others."""

import math

import keras
from keras import ops

from keras_perceiver._checks import check_fraction, check_positive


@keras.saving.register_keras_serializable(package="keras_perceiver")
class Lamb(keras.optimizers.Lamb):
    """LAMB with weight decay inside the trust ratio: what the paper is trained with.

    Each weight takes a step of Adam, plus its decay, whose length is set to the learning
    rate times the length of the weight itself. `keras.optimizers.Lamb` decays weights on
    the side, and so by the learning rate alone. Weights of one axis (biases, scales and
    offsets of norms) are not decayed; `exclude_from_weight_decay` excludes more.

    Reference:
        [You et al., 2020](https://arxiv.org/abs/1904.00962), algorithm 2; the same as
        `optax.lamb`.

    Args:
        learning_rate: Float or `keras.optimizers.schedules.LearningRateSchedule`. The
            paper takes 4e-3 for ImageNet and 1e-3 for ModelNet40.
        beta_1: Float, decay of the mean of gradients.
        beta_2: Float, decay of the mean of their squares.
        epsilon: Float, added to the root of the latter.
        weight_decay: Float, factor of a weight in its step.
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
        learning_rate=1e-3,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-6,
        weight_decay=0.0,
        name="lamb",
        **kwargs,
    ):
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
        """Nothing: Keras' way is to decay weights before their step."""

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
        of_weight, of_update = _norm(variable), _norm(update)
        is_usable = (of_weight > 0) & (of_update > 0)
        ratio = ops.where(is_usable, of_weight / ops.where(is_usable, of_update, 1), 1)
        self.assign_sub(variable, ops.cast(learning_rate, dtype) * ratio * update)


def _norm(x):
    return ops.sqrt(ops.sum(ops.square(x)))


@keras.saving.register_keras_serializable(package="keras_perceiver")
class FlatCosineDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that stays, and then falls to zero along half a cosine.

    Reference:
        The released training code of Perceiver IO,
        [Jaegle et al., 2022](https://arxiv.org/abs/2107.14795), appendix.

    Args:
        learning_rate: Float.
        num_steps: Integer, steps of the whole training.
        num_flat_steps: Integer, steps before the decay.

    Call arguments:
        step: Integer tensor, steps done so far.

    Returns:
        Float32 scalar, the learning rate of the next step.

    Raises:
        ValueError: if no steps are left for the decay.

    Example:

    >>> schedule = FlatCosineDecay(4e-3, num_steps=100, num_flat_steps=50)
    >>> [round(float(schedule(step)), 6) for step in (0, 50, 75, 100)]
    [0.004, 0.004, 0.002, 0.0]
    """

    def __init__(self, learning_rate, num_steps, num_flat_steps):
        check_positive(num_steps=num_steps)
        if not 0 <= num_flat_steps < num_steps:
            raise ValueError(
                "`num_flat_steps` must be at least 0 and less than `num_steps`. "
                f"Received: num_flat_steps={num_flat_steps}, num_steps={num_steps}. "
                "Leave steps for the decay."
            )
        self.learning_rate = learning_rate
        self.num_steps = num_steps
        self.num_flat_steps = num_flat_steps

    def __call__(self, step):
        step = ops.cast(step, "float32")
        done = (step - self.num_flat_steps) / (self.num_steps - self.num_flat_steps)
        done = ops.clip(done, 0.0, 1.0)
        return self.learning_rate * 0.5 * (1 + ops.cos(math.pi * done))

    def get_config(self):
        return {
            "learning_rate": self.learning_rate,
            "num_steps": self.num_steps,
            "num_flat_steps": self.num_flat_steps,
        }


@keras.saving.register_keras_serializable(package="keras_perceiver")
class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """Any learning rate, of which the first steps take a growing part.

    Reference:
        [Goyal et al., 2017](https://arxiv.org/abs/1706.02677), section 2.2.

    Args:
        schedule: `keras.optimizers.schedules.LearningRateSchedule`, such as
            `FlatCosineDecay` or Keras' `PiecewiseConstantDecay`.
        num_warmup_steps: Integer, steps until all of it is taken.

    Call arguments:
        step: Integer tensor, steps done so far.

    Returns:
        Float32 scalar, the learning rate of the next step.

    Raises:
        ValueError: if `num_warmup_steps` is not positive.

    Example:

    >>> steps = keras.optimizers.schedules.PiecewiseConstantDecay([100], [1.0, 0.1])
    >>> schedule = Warmup(steps, num_warmup_steps=10)
    >>> [round(float(schedule(step)), 6) for step in (0, 5, 10, 101)]
    [0.0, 0.5, 1.0, 0.1]
    """

    def __init__(self, schedule, num_warmup_steps):
        check_positive(num_warmup_steps=num_warmup_steps)
        self.schedule = schedule
        self.num_warmup_steps = num_warmup_steps

    def __call__(self, step):
        part = ops.minimum(ops.cast(step, "float32") / self.num_warmup_steps, 1.0)
        return part * self.schedule(step)

    def get_config(self):
        schedules = keras.optimizers.schedules
        return {
            "schedule": schedules.serialize(self.schedule),
            "num_warmup_steps": self.num_warmup_steps,
        }

    @classmethod
    def from_config(cls, config):
        schedule = keras.optimizers.schedules.deserialize(config["schedule"])
        return cls(**{**config, "schedule": schedule})


@keras.saving.register_keras_serializable(package="keras_perceiver")
class StepsOfParts(keras.optimizers.schedules.LearningRateSchedule):
    """Any learning rate, for an optimizer that accumulates the gradients of parts.

    Keras counts parts and not updates where it asks a schedule.

    Args:
        schedule: `keras.optimizers.schedules.LearningRateSchedule` of updates.
        num_parts: Integer, parts of an update.

    Call arguments:
        step: Integer tensor, parts done so far.

    Returns:
        Float32 scalar, the learning rate of the update that the next part belongs to.
    """

    def __init__(self, schedule, num_parts):
        check_positive(num_parts=num_parts)
        self.schedule = schedule
        self.num_parts = num_parts

    def __call__(self, step):
        return self.schedule(ops.floor_divide(step, self.num_parts))

    def get_config(self):
        schedules = keras.optimizers.schedules
        return {
            "schedule": schedules.serialize(self.schedule),
            "num_parts": self.num_parts,
        }

    from_config = Warmup.__dict__["from_config"]


@keras.saving.register_keras_serializable(package="keras_perceiver")
class Scaled(keras.optimizers.schedules.LearningRateSchedule):
    """Any learning rate, times a number.

    Args:
        schedule: `keras.optimizers.schedules.LearningRateSchedule`.
        factor: Float.

    Call arguments:
        step: Integer tensor, steps done so far.

    Returns:
        Float32 scalar, the learning rate of the next step.
    """

    def __init__(self, schedule, factor):
        self.schedule = schedule
        self.factor = factor

    def __call__(self, step):
        return self.factor * self.schedule(step)

    def get_config(self):
        schedules = keras.optimizers.schedules
        return {
            "schedule": schedules.serialize(self.schedule),
            "factor": self.factor,
        }

    from_config = Warmup.__dict__["from_config"]


def schedule_of(optimizer):
    """Returns the learning rate's schedule, or `None` where it is a number."""
    schedule = optimizer._learning_rate
    is_schedule = isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)
    return schedule if is_schedule else None


def warm_cosine(peak_learning_rate, num_steps):
    """Returns a learning rate that rises for a twentieth of a run, and falls to zero.

    Args:
        peak_learning_rate: Float.
        num_steps: Integer, updates of the weights in the run.

    Returns:
        `keras.optimizers.schedules.CosineDecay`.
    """
    warmup_steps = max(num_steps // 20, 1)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(num_steps - warmup_steps, 1),
        warmup_target=peak_learning_rate,
        warmup_steps=warmup_steps,
    )


def accumulate(optimizer, num_steps):
    """Has an optimizer update the weights with the mean gradient of several steps.

    Its learning rate and its own counts go on in updates, so that it does what it would
    do with one batch of all the examples.

    Args:
        optimizer: `keras.optimizers.Optimizer` that is not built yet.
        num_steps: Integer, steps of an update.
    """
    check_positive(accumulation_steps=num_steps)
    if num_steps == 1:
        return
    optimizer.gradient_accumulation_steps = num_steps
    schedule = schedule_of(optimizer)
    if schedule is not None:
        optimizer.learning_rate = StepsOfParts(schedule, num_steps)


def scale_learning_rate(optimizer, factor):
    """Multiplies the learning rate of an optimizer, for other sizes of batches.

    Args:
        optimizer: `keras.optimizers.Optimizer` that is not built yet.
        factor: Float.
    """
    if factor <= 0:
        raise ValueError(
            "`learning_rate_factor` must be positive. Received: "
            f"learning_rate_factor={factor}. Set it to 1.0 to leave the rate as it is."
        )
    if factor == 1:
        return
    schedule = schedule_of(optimizer)
    if schedule is None:
        optimizer.learning_rate = factor * optimizer.learning_rate
    else:
        optimizer.learning_rate = Scaled(schedule, factor)


@keras.saving.register_keras_serializable(package="keras_perceiver")
class TrackingOptimizer(keras.optimizers.Optimizer):
    """Another optimizer, and track of what it does: gradients, average of weights.

    The average is `average * m + weight * (1 - m)` after every update, where `m` is the
    momentum, or `(1 + n) / (10 + n)` while that is smaller, `n` the updates before: else
    the average of a short training would hold much of the random weights at its start.
    Keras' own `use_ema` leaves one buffer to the average and to the weight when `fit`
    ends; on JAX the next evaluation gives it away.

    Args:
        inner_optimizer: `keras.optimizers.Optimizer`, what does the work.
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

    def __init__(self, inner_optimizer, ema_momentum=None, name="tracking_optimizer"):
        super().__init__(learning_rate=0.0, name=name)
        if ema_momentum is not None:
            check_fraction(ema_momentum=ema_momentum)
        self.inner_optimizer = inner_optimizer
        self.ema_momentum = ema_momentum
        self._averages = []

    def build(self, variables):
        # Of replicas, all have the same weights.
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
                    getattr(v, "_layout", None),  # split over devices as the weight is
                )
                for v in variables
            ]
        self.inner_optimizer.build(variables)
        super().build(variables)

    @property
    def variables(self):
        return self._variables + self.inner_optimizer.variables

    def apply(self, grads, trainable_variables=None):
        if not self.built:
            self.build(list(trainable_variables))
        grads = _sums_over_replicas(self.inner_optimizer, grads)
        squares = [ops.sum(ops.square(ops.cast(g, "float32"))) for g in _known(grads)]
        norm = ops.sqrt(sum(squares))
        self._norm_sum.assign_add(norm / (self.inner_optimizer.loss_scale_factor or 1))
        self._num_norms.assign_add(1)
        self.inner_optimizer.apply(grads, trainable_variables)
        self._iterations.assign_add(1)
        self._update_averages()

    def _update_averages(self):
        if not self._averages:
            return
        num_parts = self.inner_optimizer.gradient_accumulation_steps or 1
        before = ops.cast(self._iterations // num_parts - 1, "float32")
        momentum = ops.minimum(self.ema_momentum, (1 + before) / (10 + before))
        is_update = self._iterations % num_parts == 0
        momentum = ops.where(is_update, momentum, 1.0)
        for average, variable in zip(
            self._averages, self._trainable_variables, strict=True
        ):
            value = ops.cast(variable, "float32")
            average.assign(momentum * average + (1 - momentum) * value)

    def mean_gradient_norm(self):
        """Returns the mean length of the gradients since it was last asked for.

        Before clipping; of the gradients of parts where they are accumulated.
        """
        total, number = (
            float(ops.convert_to_numpy(variable))
            for variable in (self._norm_sum, self._num_norms)
        )
        self._norm_sum.assign(0.0)
        self._num_norms.assign(0.0)
        return total / max(number, 1)

    def averages(self):
        """Returns the averaged weights, else the weights, as NumPy arrays."""
        return _copies(self._averages or self._trainable_variables)

    def swap(self):
        """Puts the averages where the weights are, and the weights in their place."""
        if self._averages:
            weights = _copies(self._trainable_variables)
            self.assign_weights(self.averages())
            for average, value in zip(self._averages, weights, strict=True):
                average.assign(value)

    def assign_weights(self, arrays):
        """Gives the weights the values of NumPy arrays, such as `averages()`."""
        for variable, value in zip(self._trainable_variables, arrays, strict=True):
            variable.assign(value)

    @property
    def learning_rate(self):
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def iterations(self):
        return self.inner_optimizer.iterations

    def scale_loss(self, loss):
        return self.inner_optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list):
        self.inner_optimizer.finalize_variable_values(var_list)

    def get_config(self):
        return {
            "inner_optimizer": keras.saving.serialize_keras_object(
                self.inner_optimizer
            ),
            "ema_momentum": self.ema_momentum,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        inner = keras.saving.deserialize_keras_object(
            config["inner_optimizer"], custom_objects=custom_objects
        )
        return cls(**{**config, "inner_optimizer": inner})


def _sums_over_replicas(optimizer, gradients):
    """Returns the gradients of the whole batch, which the optimizer is about to apply.

    Backend-specific path for tf.distribute: Keras clips the gradients of each replica,
    each of them a part of the batch, and sums what is left.
    """
    if keras.backend.backend() != "tensorflow":
        return gradients
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return gradients
    # They are sums already when the optimizer comes to sum them.
    optimizer._all_reduce_sum_gradients = list
    known = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, _known(gradients)))
    return [None if gradient is None else next(known) for gradient in gradients]


def _known(gradients):
    return [gradient for gradient in gradients if gradient is not None]


def _copies(variables):
    return [ops.convert_to_numpy(variable.value).copy() for variable in variables]
