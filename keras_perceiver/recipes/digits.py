"""Handwritten digits: a Perceiver from nothing to a served model in minutes.

Command:   make train, or KERAS_BACKEND=tensorflow python tools/train.py digits
Hardware:  2 CPU cores (AMD EPYC with AVX-512), 2026-11-23
Time:      87 s of training on TensorFlow, 64 s on JAX, 121 s on torch
Score:     test accuracy 0.9750 on TensorFlow and torch, 0.9806 on JAX, the medians of
           seeds 0, 1 and 2 (0.9750 to 0.9833)
"""

import keras

from keras_perceiver.data import digits
from keras_perceiver.models import PerceiverClassifier
from keras_perceiver.training import Recipe

_PEAK_LEARNING_RATE = 4e-3


def _optimizer(num_steps):
    warmup_steps = max(num_steps // 20, 1)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(num_steps - warmup_steps, 1),
        warmup_target=_PEAK_LEARNING_RATE,
        warmup_steps=warmup_steps,
    )
    # No use_ema: in Keras 3.15 on JAX the average and the weights then share buffers
    # that the next evaluation gives away, and the model can no longer be saved.
    return keras.optimizers.AdamW(schedule, weight_decay=0.1, clipnorm=1.0)


RECIPE = Recipe(
    name="digits",
    data=digits,
    model=lambda: PerceiverClassifier.from_preset("digits"),
    optimizer=_optimizer,
    epochs=70,
    batch_size=64,
)
