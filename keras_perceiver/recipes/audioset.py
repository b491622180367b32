"""AudioSet: the paper's model on raw audio and video, with 527 labels.

Command:   keras-perceiver train audioset --data DIR, DIR with the lists of segments
           and the folder of clips (see `keras_perceiver.data.builders.audioset`), or
           with the prepared dataset; less memory with --set accumulation_steps=64
Hardware:  not run here
Time:      not measured here
Score:     not measured here: the data need a download. The paper: mean average precision
           0.435 for raw audio and video, the mean of 16 overlapping clips per example
From the paper: the model except for its widths, epochs, and video dropout for 30 % of the
examples. Our choice, since the paper does not state them: batch size and optimizer, which
are those of ImageNet.
"""

from keras_perceiver.config import Config
from keras_perceiver.data import audioset
from keras_perceiver.models import PerceiverMultiLabelClassifier
from keras_perceiver.models.presets import PRESETS
from keras_perceiver.recipes._paper import DEFAULT_FOLDER, lamb
from keras_perceiver.training import Recipe, step_decay

RECIPE = Recipe(
    name="audioset",
    data=Config(audioset, folder=DEFAULT_FOLDER, num_test_clips=16),
    task=PerceiverMultiLabelClassifier,
    model=PRESETS["audioset_raw_video"].encoder,
    optimizer=lamb(4e-3),
    schedule=Config(step_decay, decay_at=(0.7, 0.85, 0.95)),
    epochs=100,
    batch_size=512,
)
