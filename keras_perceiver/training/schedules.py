"""Learning rate schedules of a run, from the peak and the number of updates."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from keras_perceiver._checks import check_fraction, check_positive


def warm_cosine(
    learning_rate: float, num_steps: int, warmup_fraction: float = 0.05
) -> keras.optimizers.schedules.CosineDecay:
    """Returns a schedule with linear warm-up and cosine decay to zero.

    Args:
        learning_rate: Float, the peak.
        num_steps: Integer, updates of the weights in the run.
        warmup_fraction: Float in `[0, 1)`, fraction of the run before the peak.

    Returns:
        `keras.optimizers.schedules.CosineDecay`.
    """
    check_fraction(warmup_fraction=warmup_fraction)
    warmup_steps = max(int(num_steps * warmup_fraction), 1) if warmup_fraction else 0
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else learning_rate,
        decay_steps=max(num_steps - warmup_steps, 1),
        warmup_target=learning_rate,
        warmup_steps=warmup_steps,
    )


def flat_cosine(
    learning_rate: float, num_steps: int, flat_fraction: float = 0.5
) -> keras.optimizers.schedules.CosineDecay:
    """Returns a schedule that is constant at first, then decays to zero by a cosine.

    Reference:
        The released training code of Perceiver IO,
        [Jaegle et al., 2022](https://arxiv.org/abs/2107.14795), appendix.

    Args:
        learning_rate: Float, the peak.
        num_steps: Integer, updates of the weights in the run.
        flat_fraction: Float in `[0, 1)`, fraction of the run before the decay.

    Returns:
        `keras.optimizers.schedules.CosineDecay`.
    """
    check_fraction(flat_fraction=flat_fraction)
    num_flat_steps = int(num_steps * flat_fraction)
    # A warm-up from the peak to the peak is constant.
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=learning_rate,
        decay_steps=max(num_steps - num_flat_steps, 1),
        warmup_target=learning_rate,
        warmup_steps=num_flat_steps,
    )


def step_decay(
    learning_rate: float, num_steps: int, decay_at: Sequence[float], factor: float = 0.1
) -> keras.optimizers.schedules.PiecewiseConstantDecay:
    """Returns a schedule that decays by a factor at some points of the run.

    Args:
        learning_rate: Float, the peak.
        num_steps: Integer, updates of the weights in the run.
        decay_at: Sequence of floats in `(0, 1)`, fractions of the run.
        factor: Float, decay factor.

    Returns:
        `keras.optimizers.schedules.PiecewiseConstantDecay`.
    """
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        [round(fraction * num_steps) for fraction in decay_at],
        [learning_rate * factor**i for i in range(len(decay_at) + 1)],
    )


@keras.saving.register_keras_serializable(package="keras_perceiver")
class AccumulatedSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule for an optimizer that accumulates the gradients of micro-batches.

    Keras calls a schedule with the number of micro-batches instead of that of updates.

    Args:
        schedule: `keras.optimizers.schedules.LearningRateSchedule` by updates.
        accumulation_steps: Integer, micro-batches per update.

    Call arguments:
        step: Integer tensor, micro-batches so far.

    Returns:
        Float32 scalar, the learning rate of the update of the next micro-batch.
    """

    def __init__(self, schedule, accumulation_steps):
        check_positive(accumulation_steps=accumulation_steps)
        self.schedule = schedule
        self.accumulation_steps = accumulation_steps

    def __call__(self, step):
        return self.schedule(ops.floor_divide(step, self.accumulation_steps))

    def get_config(self):
        return {
            "schedule": keras.optimizers.schedules.serialize(self.schedule),
            "accumulation_steps": self.accumulation_steps,
        }

    @classmethod
    def from_config(cls, config):
        schedule = keras.optimizers.schedules.deserialize(config["schedule"])
        return cls(**{**config, "schedule": schedule})


def accumulate_gradients(optimizer, accumulation_steps):
    """Sets an optimizer to update the weights with the mean of several gradients.

    Its learning rate and its iterations count updates, so that the result is that of one
    batch with all the examples.

    Args:
        optimizer: Unbuilt `keras.optimizers.Optimizer`.
        accumulation_steps: Integer, micro-batches per update.
    """
    check_positive(accumulation_steps=accumulation_steps)
    if accumulation_steps == 1:
        return
    optimizer.gradient_accumulation_steps = accumulation_steps
    schedule = schedule_of(optimizer)
    if schedule is not None:
        optimizer.learning_rate = AccumulatedSchedule(schedule, accumulation_steps)


def schedule_of(optimizer):
    """Returns an optimizer's schedule, or `None` for a constant learning rate."""
    # The public property is the current value.
    schedule = optimizer._learning_rate
    is_schedule = isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)
    return schedule if is_schedule else None
