"""Modalities: layers that turn raw inputs into elements with positions."""

from keras_perceiver.modalities.audio import Audio
from keras_perceiver.modalities.base import Modality
from keras_perceiver.modalities.byte_array import ByteArray
from keras_perceiver.modalities.conv_image import ConvImage
from keras_perceiver.modalities.grids import Array, Image, Video
from keras_perceiver.modalities.mel_spectrogram import MelSpectrogram
from keras_perceiver.modalities.points import PointCloud
from keras_perceiver.modalities.preprocessors import (
    AudioPreprocessor,
    ImagePreprocessor,
    PointCloudPreprocessor,
    Preprocessor,
    VideoPreprocessor,
)
from keras_perceiver.modalities.sequence import Sequence
from keras_perceiver.modalities.series import Series

__all__ = [
    "Array",
    "Audio",
    "AudioPreprocessor",
    "ByteArray",
    "ConvImage",
    "Image",
    "ImagePreprocessor",
    "MelSpectrogram",
    "Modality",
    "PointCloud",
    "PointCloudPreprocessor",
    "Preprocessor",
    "Sequence",
    "Series",
    "Video",
    "VideoPreprocessor",
]
