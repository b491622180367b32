"""The Perceiver for Keras 3."""

from keras_perceiver.config import Config
from keras_perceiver.distribution import Distribution
from keras_perceiver.layers import (
    ByteArray,
    CrossAttend,
    FourierPositionEncoding,
    IterativeAttention,
    LatentArray,
    LatentTransformer,
    LearnedPositionEncoding,
    SelfAttend,
    attend,
)
from keras_perceiver.modalities import (
    Array,
    Audio,
    Image,
    MelSpectrogram,
    Modality,
    PointCloud,
    Sequence,
    Video,
)
from keras_perceiver.models import (
    Perceiver,
    PerceiverClassifier,
    PerceiverMultiLabelClassifier,
    SmoothedCrossentropy,
    flops,
)
from keras_perceiver.serving import export_for_serving
from keras_perceiver.training import (
    Lamb,
)
from keras_perceiver.tuning import PerceiverHyperModel
from keras_perceiver.visualization import attention_maps

__version__ = "0.1.0"

__all__ = [
    "Array",
    "Audio",
    "ByteArray",
    "Config",
    "CrossAttend",
    "Distribution",
    "FourierPositionEncoding",
    "Image",
    "IterativeAttention",
    "Lamb",
    "LatentArray",
    "LatentTransformer",
    "LearnedPositionEncoding",
    "MelSpectrogram",
    "Modality",
    "Perceiver",
    "PerceiverClassifier",
    "PerceiverHyperModel",
    "PerceiverMultiLabelClassifier",
    "PointCloud",
    "SelfAttend",
    "Sequence",
    "SmoothedCrossentropy",
    "Video",
    "attend",
    "attention_maps",
    "export_for_serving",
    "flops",
]
