"""The paper's settings, and ours for small data, as data."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from keras_perceiver.layers import LearnedPositionEncoding
from keras_perceiver.modalities import Image


@dataclasses.dataclass(frozen=True)
class Preset:
    """Everything that makes a `PerceiverClassifier`, and where it comes from.

    Attributes:
        source: String, what the settings are taken from, and which are our choice.
        modality: Callable without arguments that makes the modality layer.
        encoder: Mapping of the other arguments of `Perceiver`.
        num_classes: Integer, number of classes of the source's data set.
        parameters: Integer, number of parameters with that many classes.
        gflops: Float, billions of floating-point operations of one forward pass of one
            example, two per multiplication-and-addition (see `keras_perceiver.flops`).
    """

    source: str
    modality: Callable
    encoder: Mapping
    num_classes: int
    parameters: int
    gflops: float


_IMAGENET = MappingProxyType(
    {
        "num_latents": 512,
        "latent_dim": 1024,
        "num_blocks": 8,
        "num_self_attends_per_block": 6,
        "num_cross_attend_heads": 1,
        "num_self_attend_heads": 8,
        "share_weights": True,
    }
)

PRESETS = MappingProxyType(
    {
        "imagenet": Preset(
            source="Jaegle et al., 2021, section 4.1: 224x224 crops, Fourier features.",
            modality=partial(Image, (224, 224, 3), num_bands=64, max_resolution=224),
            encoder=_IMAGENET,
            num_classes=1000,
            parameters=44_912_254,
            gflops=706.3,
        ),
        "imagenet_learned": Preset(
            source="Jaegle et al., 2021, section 4.1, table 2: learned positions. Their "
            "width is our choice: that of the Fourier features, for equal FLOPs.",
            modality=lambda: Image(
                (224, 224, 3), position_encoding=LearnedPositionEncoding(258)
            ),
            encoder=_IMAGENET,
            num_classes=1000,
            parameters=57_857_662,
            gflops=706.3,
        ),
        "digits": Preset(
            source="Our choice, for scikit-learn's 8x8 digits on two CPU cores.",
            modality=partial(Image, (8, 8, 1), num_bands=4),
            encoder=MappingProxyType(
                {
                    "num_latents": 8,
                    "latent_dim": 64,
                    "num_blocks": 2,
                    "num_self_attends_per_block": 2,
                    "num_cross_attend_heads": 8,
                    "num_self_attend_heads": 4,
                    # An element is 19 wide only: too narrow for several heads.
                    "cross_attend_qk_dim": 64,
                    "dropout": 0.1,
                }
            ),
            num_classes=10,
            parameters=90_582,
            gflops=0.00305,
        ),
    }
)
