"""Speech Commands: a small Perceiver on mel spectrograms of spoken words.

Command:   keras-perceiver train speech_commands, which downloads the data to
           ~/tensorflow_datasets, or to DIR with --data DIR, if necessary
Hardware:  not run here
Time:      not measured here
Score:     not measured here: the data need a download. The paper has no such
           experiment, so the settings are our choice
"""

from keras_perceiver.config import Config
from keras_perceiver.data import speech_commands
from keras_perceiver.modalities import MelSpectrogram
from keras_perceiver.models import PerceiverClassifier
from keras_perceiver.recipes._paper import DEFAULT_FOLDER
from keras_perceiver.recipes._small import SCHEDULE, adamw, small_encoder
from keras_perceiver.training import Recipe

_MODALITY = Config(
    MelSpectrogram,
    num_samples=16_000,
    sample_rate=16_000,
    num_mel_bins=64,
    frame_length=512,
    frame_step=160,
    patch_size=(1, 64),
    num_bands=16,
    time_masks=(2, 20),
    frequency_masks=(2, 12),
)

RECIPE = Recipe(
    name="speech_commands",
    data=Config(speech_commands, folder=DEFAULT_FOLDER, download=True),
    task=PerceiverClassifier,
    model=small_encoder(_MODALITY, num_latents=48, latent_dim=128),
    optimizer=adamw(2e-3),
    schedule=SCHEDULE,
    epochs=60,
    batch_size=128,
    label_smoothing=0.1,
    ema_momentum=0.999,
)
