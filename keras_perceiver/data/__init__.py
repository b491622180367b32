"""Datasets as `tf.data` pipelines, and their augmentation."""

from keras_perceiver.data.augmentation import (
    audio_augmentation,
    image_augmentation,
    point_cloud_augmentation,
    point_scaling,
    scale_to_unit_cube,
    video_augmentation,
)
from keras_perceiver.data.crops import (
    inception_crop,
    overlapping_clips,
    time_crop,
)
from keras_perceiver.data.datasets import (
    audioset,
    cifar10,
    digits,
    draw_letters,
    fashion_mnist,
    imagenet,
    mnist,
    modelnet40,
    speech_commands,
)
from keras_perceiver.data.epochs import epoch_order
from keras_perceiver.data.folders import LabeledFolder, read_folder
from keras_perceiver.data.mixing import cutmix, mixup, mixup_or_cutmix
from keras_perceiver.data.rand_augment import rand_augment
from keras_perceiver.data.splits import Splits, augment_dataset, folder_splits
from keras_perceiver.data.tfds import tfds_splits

__all__ = [
    "LabeledFolder",
    "Splits",
    "audio_augmentation",
    "audioset",
    "augment_dataset",
    "cifar10",
    "cutmix",
    "digits",
    "draw_letters",
    "epoch_order",
    "fashion_mnist",
    "folder_splits",
    "image_augmentation",
    "imagenet",
    "inception_crop",
    "mixup",
    "mixup_or_cutmix",
    "mnist",
    "modelnet40",
    "overlapping_clips",
    "point_cloud_augmentation",
    "point_scaling",
    "rand_augment",
    "read_folder",
    "scale_to_unit_cube",
    "speech_commands",
    "tfds_splits",
    "time_crop",
    "video_augmentation",
]
