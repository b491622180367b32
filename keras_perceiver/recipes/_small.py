"""What the recipes for small data share: one Perceiver, one optimizer."""

import keras

from keras_perceiver.models import Perceiver, PerceiverClassifier
from keras_perceiver.training import Recipe


def optimizer(peak_learning_rate):
    """Returns what makes AdamW with a short warm-up and a cosine to zero."""

    def make(num_steps):
        warmup_steps = max(num_steps // 20, 1)
        schedule = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0,
            decay_steps=max(num_steps - warmup_steps, 1),
            warmup_target=peak_learning_rate,
            warmup_steps=warmup_steps,
        )
        # No use_ema: in Keras 3.15 on JAX the average and the weights then share buffers
        # that the next evaluation gives away, and the model can no longer be saved.
        return keras.optimizers.AdamW(schedule, weight_decay=0.1, clipnorm=1.0)

    return make


def folder_recipe(name, data, modality, epochs, batch_size=32, **settings):
    """Returns a recipe of a small Perceiver on folders of labelled files.

    Args:
        name: String, the name of the recipe's module.
        data: Callable `(batch_size, seed, folder)` that returns `Splits`.
        modality: Callable without arguments that makes the modality layer.
        epochs: Integer, passes over the training data.
        batch_size: Integer, examples per training step.
        **settings: Arguments of `Perceiver` that replace those below.
    """
    settings = {
        "num_latents": 32,
        "latent_dim": 96,
        "num_blocks": 2,
        "num_self_attends_per_block": 2,
        "num_cross_attend_heads": 1,
        "num_self_attend_heads": 4,
        "dropout": 0.2,
        "element_dropout": 0.2,
        **settings,
    }
    return Recipe(
        name=name,
        data=data,
        model=lambda num_classes: PerceiverClassifier(
            Perceiver(modality(), **settings), num_classes
        ),
        optimizer=optimizer(2e-3),
        epochs=epochs,
        batch_size=batch_size,
        label_smoothing=0.1,
        reads_folder=True,
    )
