"""ImageNet: the paper's model on raw pixels.

Command:   keras-perceiver train imagenet --data DIR, DIR with the archives
           ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from image-net.org, or
           with the prepared dataset (by default in the folder of TensorFlow Datasets);
           less memory with --set accumulation_steps=64
Hardware:  not run here
Time:      not measured here
Score:     not measured here: the data need a download. The paper: top-1 accuracy 0.780

From the paper: model, epochs, LAMB, learning rate and its decay. From the released code of
Perceiver IO, since the paper does not state them: batch size, weight decay, clipping, label
smoothing, RandAugment(4, 5), CutMix and MixUp.
"""

from keras_perceiver.config import Config
from keras_perceiver.data import imagenet
from keras_perceiver.models import PerceiverClassifier
from keras_perceiver.models.presets import PRESETS
from keras_perceiver.recipes._paper import DEFAULT_FOLDER, lamb
from keras_perceiver.training import Recipe, step_decay

RECIPE = Recipe(
    name="imagenet",
    data=Config(imagenet, folder=DEFAULT_FOLDER),
    task=PerceiverClassifier,
    model=PRESETS["imagenet"].encoder,
    optimizer=lamb(4e-3),
    schedule=Config(step_decay, decay_at=(84 / 120, 102 / 120, 114 / 120)),
    epochs=120,
    batch_size=1024,
    label_smoothing=0.1,
)
