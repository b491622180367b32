"""Data sets as `tf.data` pipelines. The only package that imports TensorFlow."""

from keras_perceiver.data.augmentation import (
    image_changes,
    point_changes,
    sound_changes,
)
from keras_perceiver.data.digits import digits
from keras_perceiver.data.files import (
    AudioFiles,
    Files,
    ImageFiles,
    PointFiles,
    VideoFiles,
)
from keras_perceiver.data.folders import LabelledFolder, read_folder
from keras_perceiver.data.splits import Splits, augmented, folder_splits

__all__ = [
    "AudioFiles",
    "Files",
    "ImageFiles",
    "LabelledFolder",
    "PointFiles",
    "Splits",
    "VideoFiles",
    "augmented",
    "digits",
    "folder_splits",
    "image_changes",
    "point_changes",
    "read_folder",
    "sound_changes",
]
