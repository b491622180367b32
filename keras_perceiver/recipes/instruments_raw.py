"""Notes of 6 families of instruments: a Perceiver on the samples of WAV files.

Command:   make train RECIPE=instruments_raw ARGS="--data DIR", DIR with train/ and test/
Hardware:  1 CPU core (AMD EPYC with AVX2), JAX, 2026-11-24
Time:      206 s of training
Score:     test accuracy 0.614 (seed 0)
"""

from keras_perceiver.modalities import Audio
from keras_perceiver.recipes._small import folder_recipe
from keras_perceiver.recipes.instruments_mel import (
    NUM_SAMPLES,
    SAMPLE_RATE,
    data,
    files,
)

RECIPE = folder_recipe(
    "instruments_raw",
    data,
    files,
    lambda: Audio(NUM_SAMPLES, SAMPLE_RATE, patch_size=64, num_bands=16, use_mask=True),
    epochs=100,
)
