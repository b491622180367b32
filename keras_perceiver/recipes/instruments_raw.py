"""Notes of 6 instrument families: a Perceiver on the samples of WAV files.

Command:   keras-perceiver train instruments_raw --data DIR, DIR with train/ and test/
Hardware:  1 CPU core (AMD EPYC with AVX2), JAX, 2026-11-25
Time:      323 to 384 s of training, on a shared machine
Score:     test accuracy 0.716, the median of seeds 0, 1 and 2 (0.636 to 0.739), on 88
           notes
"""

from keras_perceiver.config import Config
from keras_perceiver.modalities import Audio
from keras_perceiver.recipes._small import folder_recipe
from keras_perceiver.recipes.instruments_mel import (
    DATA,
    NUM_SAMPLES,
    PREPROCESSOR,
    SAMPLE_RATE,
)

RECIPE = folder_recipe(
    "instruments_raw",
    # Stronger than for spectrograms, since the samples of a delayed note look
    # different.
    DATA.replace({"augment.shift": 0.1, "augment.speed": 0.25}),
    PREPROCESSOR,
    Config(
        Audio,
        num_samples=NUM_SAMPLES,
        sample_rate=SAMPLE_RATE,
        patch_size=128,
        num_bands=16,
        use_mask=True,
    ),
    epochs=300,
    num_latents=16,
    dropout=0.3,
    element_dropout=0.4,
)
