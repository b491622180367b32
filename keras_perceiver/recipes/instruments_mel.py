"""Notes of 6 families of instruments: a Perceiver on mel spectrograms of WAV files.

Command:   make train RECIPE=instruments_mel ARGS="--data DIR", DIR with train/ and test/
Hardware:  1 CPU core (AMD EPYC with AVX2), JAX, 2026-11-25
Time:      204 to 205 s of training, beside other work
Score:     test accuracy 0.807, the median of seeds 0, 1 and 2 (0.795 to 0.818), on 88
           notes that trees on hand-made features get to 0.78
"""

from keras_perceiver.data import AudioFiles, folder_splits, sound_changes
from keras_perceiver.modalities import MelSpectrogram
from keras_perceiver.recipes._small import folder_recipe, series

SAMPLE_RATE = 8_000  # hertz
NUM_SAMPLES = 8_000  # one second


def files():
    """Returns the reader of the notes, at most one second of each."""
    return AudioFiles(SAMPLE_RATE, NUM_SAMPLES, use_mask=True)


def changes():
    """Returns the random changes of notes, which are all of one loudness."""
    return sound_changes(shift=0.03, gain=(0.5, 1.1))


def data(batch_size, seed, folder, change=None):
    """Returns the notes, changed as `changes` does unless told otherwise.

    Whole series of them are for validation, and few: there are not many to learn from.
    """
    return folder_splits(
        folder,
        files(),
        batch_size,
        seed,
        change or changes(),
        validation_fraction=0.1,
        group=series,
    )


def modality():
    """Returns the layer that makes a spectrogram of a note: 63 elements, its frames."""
    return MelSpectrogram(
        NUM_SAMPLES,
        SAMPLE_RATE,
        num_mel_bins=40,
        frame_length=512,
        frame_step=128,
        patch_size=(1, 40),
        num_bands=8,
        use_mask=True,
    )


RECIPE = folder_recipe(
    "instruments_mel", data, files, modality, epochs=80, num_latents=16
)
