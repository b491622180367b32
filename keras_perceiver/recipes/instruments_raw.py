"""Notes of 6 families of instruments: a Perceiver on the samples of WAV files.

Command:   make train RECIPE=instruments_raw ARGS="--data DIR", DIR with train/ and test/
Hardware:  1 CPU core (AMD EPYC with AVX2), JAX, 2026-11-25
Time:      323 to 384 s of training, beside other work
Score:     test accuracy 0.716, the median of seeds 0, 1 and 2 (0.636 to 0.739), on 88
           notes
"""

from keras_perceiver.data import sound_changes
from keras_perceiver.modalities import Audio
from keras_perceiver.recipes import instruments_mel
from keras_perceiver.recipes._small import folder_recipe
from keras_perceiver.recipes.instruments_mel import NUM_SAMPLES, SAMPLE_RATE


def _data(batch_size, seed, folder):
    # More than for spectrograms: in samples, a note looks another one after a delay.
    change = sound_changes(shift=0.1, speed=0.25, gain=(0.5, 1.1))
    return instruments_mel.data(batch_size, seed, folder, change)


RECIPE = folder_recipe(
    "instruments_raw",
    _data,
    instruments_mel.files,
    lambda: Audio(
        NUM_SAMPLES, SAMPLE_RATE, patch_size=128, num_bands=16, use_mask=True
    ),
    epochs=300,
    num_latents=16,
    dropout=0.3,
    element_dropout=0.4,
)
