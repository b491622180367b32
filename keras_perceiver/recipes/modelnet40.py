"""ModelNet40: the paper's model on point clouds of 2,048 points.

Command:   keras-perceiver train modelnet40 --data DIR, DIR with ModelNet40.zip, or with
           the prepared dataset
Hardware:  not run here
Time:      not measured here
Score:     not measured here: the data need a download. The paper: top-1 accuracy 0.857

From the paper: the model except for its widths, LAMB with a constant learning rate, batch
size, and augmentation. From the released code of Perceiver IO: weight decay and clipping.
Our choice, since the paper does not state it: epochs.
"""

from keras_perceiver.config import Config
from keras_perceiver.data import modelnet40
from keras_perceiver.models import PerceiverClassifier
from keras_perceiver.models.presets import PRESETS
from keras_perceiver.recipes._paper import DEFAULT_FOLDER, lamb
from keras_perceiver.training import Recipe

RECIPE = Recipe(
    name="modelnet40",
    data=Config(modelnet40, folder=DEFAULT_FOLDER),
    task=PerceiverClassifier,
    model=PRESETS["modelnet40"].encoder,
    optimizer=lamb(1e-3),
    epochs=300,
    batch_size=512,
)
