"""Preprocessors, which turn files into the raw inputs of a modality."""

from keras_perceiver.modalities.preprocessors.audio import AudioPreprocessor
from keras_perceiver.modalities.preprocessors.base import Preprocessor
from keras_perceiver.modalities.preprocessors.file_rules import FileRule, first_error
from keras_perceiver.modalities.preprocessors.image import ImagePreprocessor
from keras_perceiver.modalities.preprocessors.point_cloud import (
    PointCloudPreprocessor,
)
from keras_perceiver.modalities.preprocessors.video import VideoPreprocessor

__all__ = [
    "AudioPreprocessor",
    "FileRule",
    "ImagePreprocessor",
    "PointCloudPreprocessor",
    "Preprocessor",
    "VideoPreprocessor",
    "first_error",
]
