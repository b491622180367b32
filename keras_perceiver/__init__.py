"""Perceiver models for Keras 3: images, sound, video, points, sequences and tables.

`Perceiver` is the encoder. It takes a modality, such as `Image` or `Audio`, or several
in a `ByteArray`. A task, such as `PerceiverClassifier`, adds a head. The packages are:

- `keras_perceiver.modalities`: from raw inputs to elements with positions, and from files
  to raw inputs.
- `keras_perceiver.models`: encoder, decoder, tasks, presets, losses, metrics, FLOPs.
- `keras_perceiver.convert`: weights of DeepMind and Hugging Face.
- `keras_perceiver.layers`: attention blocks, latents, position encodings.
- `keras_perceiver.data`: folders of files, TensorFlow Datasets, augmentation.
- `keras_perceiver.recipes`, `keras_perceiver.training`: training runs, optimizers,
  resuming.
- `keras_perceiver.tuning`: hyperparameter search with KerasTuner.
- `keras_perceiver.serving`: SavedModels for TF Serving, ONNX, LiteRT.
- `keras_perceiver.visualization`: attention maps and figures.
- `keras_perceiver.distribution`: several devices and processes.

Everything that a saved model may need (layers, models, losses, metrics, optimizers) is
imported eagerly and depends on Keras and NumPy only. Other packages are imported
lazily.
"""

import importlib
import sys
import typing
from pathlib import Path


def _is_command():
    """Returns whether this process is the command, which checks arguments before imports.

    It was started as `keras-perceiver` or as `python -m keras_perceiver`. While Python
    locates the module of `-m`, the first argument is `-m`.
    """
    if sys.argv[:1] == ["-m"]:
        _, _, rest = "\0".join(sys.orig_argv).partition("\0-m\0")
        return rest.split("\0")[0] == __name__
    return bool(sys.argv) and Path(sys.argv[0]).stem == "keras-perceiver"


# The command reports errors in its arguments before it imports Keras.
if typing.TYPE_CHECKING or not _is_command():
    from keras_perceiver import convert as convert
    from keras_perceiver.config import Config
    from keras_perceiver.layers import (
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
        AudioPreprocessor,
        ByteArray,
        ConvImage,
        Image,
        ImagePreprocessor,
        MelSpectrogram,
        Modality,
        PointCloud,
        PointCloudPreprocessor,
        Preprocessor,
        Sequence,
        Series,
        Video,
        VideoPreprocessor,
    )
    from keras_perceiver.models import (
        InputQueries,
        LearnedQueries,
        ModalityQueries,
        Perceiver,
        PerceiverClassifier,
        PerceiverDecoder,
        PerceiverDensePredictor,
        PerceiverMultiLabelClassifier,
        PerceiverSegmenter,
        PositionQueries,
        SmoothedCrossentropy,
        flops,
    )
    from keras_perceiver.training import (
        Lamb,
    )

if typing.TYPE_CHECKING:
    from keras_perceiver import data as data
    from keras_perceiver import distribution as distribution
    from keras_perceiver import recipes as recipes
    from keras_perceiver import serving as serving
    from keras_perceiver import tuning as tuning
    from keras_perceiver import visualization as visualization
    from keras_perceiver.distribution import Distribution
    from keras_perceiver.serving import export_for_serving
    from keras_perceiver.tuning import PerceiverHyperModel
    from keras_perceiver.visualization import attention_maps

__version__ = "0.1.0"

__all__ = [
    "Array",
    "Audio",
    "AudioPreprocessor",
    "ByteArray",
    "Config",
    "ConvImage",
    "CrossAttend",
    "Distribution",
    "FourierPositionEncoding",
    "Image",
    "ImagePreprocessor",
    "InputQueries",
    "IterativeAttention",
    "Lamb",
    "LatentArray",
    "LatentTransformer",
    "LearnedPositionEncoding",
    "LearnedQueries",
    "MelSpectrogram",
    "Modality",
    "ModalityQueries",
    "Perceiver",
    "PerceiverClassifier",
    "PerceiverDecoder",
    "PerceiverDensePredictor",
    "PerceiverHyperModel",
    "PerceiverMultiLabelClassifier",
    "PerceiverSegmenter",
    "PointCloud",
    "PointCloudPreprocessor",
    "PositionQueries",
    "Preprocessor",
    "SelfAttend",
    "Sequence",
    "Series",
    "SmoothedCrossentropy",
    "Video",
    "VideoPreprocessor",
    "attend",
    "attention_maps",
    "export_for_serving",
    "flops",
]

# Packages that are imported lazily, and their names in `__all__`.
_LAZY = {
    "data": (),
    "distribution": ("Distribution",),
    "recipes": (),
    "serving": ("export_for_serving",),
    "tuning": ("PerceiverHyperModel",),
    "visualization": ("attention_maps",),
}


# Packages that are imported eagerly, with the classes that a saved model may need, and
# the loaders of presets.
REGISTERED = ("config", "layers", "modalities", "models", "training", "convert")


def __getattr__(name):
    for package, names in _LAZY.items():
        if name == package or name in names:
            module = importlib.import_module(f"{__name__}.{package}")
            value = module if name == package else getattr(module, name)
            globals()[name] = value
            return value
    for package in REGISTERED if name in __all__ else ():  # in the command
        module = importlib.import_module(f"{__name__}.{package}")
        if hasattr(module, name):
            return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__, *_LAZY})
