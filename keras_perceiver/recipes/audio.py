"""Your own audio files in folders: a small Perceiver on mel spectrograms.

Command:   keras-perceiver train --audio DIR, DIR with CLASS/FILE (parts of each class are
           held out for validation and test) or with train/ and test/ of these
Hardware:  see the recipe instruments_mel, which is similar
Time:      see there; 130,000 examples, and at least 10 epochs
Score:     see there
"""

from keras_perceiver.config import Config
from keras_perceiver.data import audio_augmentation, folder_splits
from keras_perceiver.modalities import AudioPreprocessor, MelSpectrogram
from keras_perceiver.recipes._small import folder_recipe

# `keras_perceiver.recipes._sizes` replaces these.
_SAMPLE_RATE = 16_000  # hertz
_NUM_SAMPLES = 16_000

RECIPE = folder_recipe(
    "audio",
    Config(
        folder_splits, augment=Config(audio_augmentation, shift=0.03, gain=(0.5, 1.1))
    ),
    Config(
        AudioPreprocessor,
        sample_rate=_SAMPLE_RATE,
        num_samples=_NUM_SAMPLES,
        use_mask=True,
    ),
    # The inputs are the frames.
    Config(
        MelSpectrogram,
        num_samples=_NUM_SAMPLES,
        sample_rate=_SAMPLE_RATE,
        num_mel_bins=40,
        frame_length=1024,
        frame_step=256,
        patch_size=(1, 40),
        num_bands=8,
        use_mask=True,
    ),
    epochs=80,
    num_latents=16,
)
