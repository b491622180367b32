"""Presets: the paper's models, and sizes for data of your own."""

import dataclasses
from types import MappingProxyType

from keras_perceiver._checks import nearest
from keras_perceiver.config import Config
from keras_perceiver.layers import CrossAttend, LearnedPositionEncoding, SelfAttend
from keras_perceiver.modalities import (
    Audio,
    ByteArray,
    ConvImage,
    Image,
    MelSpectrogram,
    PointCloud,
    Video,
)
from keras_perceiver.models.decoder import PerceiverDecoder
from keras_perceiver.models.encoder import Perceiver
from keras_perceiver.models.queries import LearnedQueries


@dataclasses.dataclass(frozen=True)
class Preset:
    """The settings of a classifier, and their source.

    Attributes:
        source: String, where the settings are from, and which are our choice.
        encoder: `Config` of the `Perceiver`.
        num_classes: Integer, number of classes of the dataset.
        parameters: Integer, number of trainable parameters with that many classes.
        num_inputs: Integer, number of input elements per example.
        gflops: Float, GFLOPs of a forward pass per example, two FLOPs per
            multiply-accumulate (see `keras_perceiver.flops`).
        decoder: `Config` of the `PerceiverDecoder`, or `None` for the mean over the
            latents.
    """

    source: str
    encoder: Config
    num_classes: int
    parameters: int
    num_inputs: int
    gflops: float
    decoder: Config | None = None


# The paper's encoder for ImageNet, to which presets add the modality.
_IMAGENET = Config(
    Perceiver,
    num_latents=512,
    latent_dim=1024,
    num_blocks=8,
    num_self_attends_per_block=6,
    cross_attend=Config(CrossAttend, num_heads=1),
    self_attend=Config(SelfAttend, num_heads=8),
    share_weights=True,
)
# Perceiver IO's: one cross-attend, and a decoder with one query.
_IMAGENET_IO = _IMAGENET.replace({"num_cross_attends": 1})

# Its configuration B, for pretraining on hundreds of millions of images.
_IMAGENET_IO_B = _IMAGENET_IO.replace(
    {
        "num_latents": 384,
        "num_blocks": 1,
        "num_self_attends_per_block": 16,
        "self_attend": Config(SelfAttend, num_heads=8, widening_factor=4),
    }
)
_B_SOURCE = (
    "Jaegle et al., 2021 (Perceiver IO), appendix H, configuration B: 16 self-attends "
    "with a widening factor of 4. Our choice: {} and 384 latents, which come closest to "
    "the paper's FLOPs, {} billion. "
)


def _io_decoder(use_query_residual=True):
    return Config(
        PerceiverDecoder,
        queries=Config(LearnedQueries, num_queries=1, query_dim=1024),
        cross_attend=Config(
            CrossAttend, num_heads=1, use_query_residual=use_query_residual
        ),
    )


_AUDIOSET = _IMAGENET.replace(
    {"num_blocks": 2, "num_self_attends_per_block": 8, "share_weights": False}
)
_AUDIOSET_SOURCE = (
    "Jaegle et al., 2021, section 4.2. Multi-label: compile with "
    "BinaryCrossentropy(from_logits=True). Our choice: latents, heads and Fourier "
    "bands, as on ImageNet. "
)
_RAW_AUDIO = Config(Audio, num_samples=61_440, sample_rate=48_000, patch_size=128)
_MEL_SPECTROGRAM = Config(
    MelSpectrogram,
    num_samples=61_440,
    sample_rate=48_000,
    num_mel_bins=80,
    frame_length=2048,
    frame_step=1024,
)
_VIDEO = Config(Video, shape=(32, 224, 224, 3), patch_size=(2, 8, 8))


def _sized(num_latents, latent_dim, num_blocks):
    """Returns the encoder of a size for data of any modality, here small images."""
    return Config(
        Perceiver,
        modality=Config(Image, shape=(32, 32, 3), patch_size=2, num_bands=8),
        num_latents=num_latents,
        latent_dim=latent_dim,
        num_blocks=num_blocks,
        num_self_attends_per_block=2,
        cross_attend=Config(CrossAttend, num_heads=1, dropout=0.1),
        self_attend=Config(SelfAttend, num_heads=4, dropout=0.1),
    )


_SIZE_SOURCE = "Our choice, for {}. Replace `modality` by that of your data."


def _with_video(audio):
    return Config(
        ByteArray,
        modality={"audio": audio, "video": _VIDEO},
        modality_dropout={"video": 0.3},
    )


PRESETS = MappingProxyType(
    {
        "imagenet": Preset(
            source="Jaegle et al., 2021, section 4.1: 224x224 crops, Fourier features.",
            encoder=_IMAGENET.replace(
                {
                    "modality": Config(
                        Image, shape=(224, 224, 3), num_bands=64, max_resolution=224
                    )
                }
            ),
            num_classes=1000,
            parameters=44_912_254,
            num_inputs=50_176,
            gflops=706.3,
        ),
        "imagenet_learned": Preset(
            source="Jaegle et al., 2021, section 4.1, table 2: learned positions. Their "
            "width is our choice: that of the Fourier features, for equal FLOPs.",
            encoder=_IMAGENET.replace(
                {
                    "modality": Config(
                        Image,
                        shape=(224, 224, 3),
                        position_encoding=Config(LearnedPositionEncoding, dim=258),
                    )
                }
            ),
            num_classes=1000,
            parameters=57_857_662,
            num_inputs=50_176,
            gflops=706.3,
        ),
        "imagenet_io": Preset(
            source="Jaegle et al., 2021 (Perceiver IO), appendix H: Fourier features.",
            encoder=_IMAGENET_IO.replace(
                {
                    "modality": Config(
                        Image, shape=(224, 224, 3), num_bands=64, max_resolution=224
                    )
                }
            ),
            decoder=_io_decoder(),
            num_classes=1000,
            parameters=48_440_627,
            num_inputs=50_176,
            gflops=406.1,
        ),
        "imagenet_io_learned": Preset(
            source="Jaegle et al., 2021 (Perceiver IO), appendix H: learned positions, "
            "pixels and positions projected to 256 channels.",
            encoder=_IMAGENET_IO.replace(
                {
                    "modality": Config(
                        Image,
                        shape=(224, 224, 3),
                        projection_dim=256,
                        position_encoding=Config(
                            LearnedPositionEncoding, dim=256, projected_dim=256
                        ),
                    )
                }
            ),
            # Alone among the image models of DeepMind's release.
            decoder=_io_decoder(use_query_residual=False),
            num_classes=1000,
            parameters=62_255_848,
            num_inputs=50_176,
            gflops=471.4,
        ),
        "imagenet_io_conv": Preset(
            source="Jaegle et al., 2021 (Perceiver IO), appendix H: a convolution of 7x7 "
            "and pooling before the Fourier features.",
            encoder=_IMAGENET_IO.replace(
                {
                    "modality": Config(
                        ConvImage, shape=(224, 224, 3), num_bands=64, max_resolution=56
                    )
                }
            ),
            decoder=_io_decoder(),
            num_classes=1000,
            parameters=48_646_522,
            num_inputs=3_136,
            gflops=369.1,
        ),
        "imagenet_io_b": Preset(
            source=_B_SOURCE.format("Fourier features", 213),
            encoder=_IMAGENET_IO_B.replace(
                {
                    "modality": Config(
                        Image, shape=(224, 224, 3), num_bands=64, max_resolution=224
                    )
                }
            ),
            decoder=_io_decoder(),
            num_classes=1000,
            parameters=212_038_963,
            num_inputs=50_176,
            gflops=201.7,
        ),
        "imagenet_io_conv_b": Preset(
            source=_B_SOURCE.format("the convolution of configuration A", 176),
            encoder=_IMAGENET_IO_B.replace(
                {
                    "modality": Config(
                        ConvImage, shape=(224, 224, 3), num_bands=64, max_resolution=56
                    )
                }
            ),
            decoder=_io_decoder(),
            num_classes=1000,
            parameters=212_244_858,
            num_inputs=3_136,
            gflops=170.9,
        ),
        "audioset_raw": Preset(
            source=_AUDIOSET_SOURCE + "61,440 samples at 48 kHz as 480 x 128.",
            encoder=_AUDIOSET.replace({"modality": _RAW_AUDIO}),
            num_classes=527,
            parameters=107_419_677,
            num_inputs=480,
            gflops=126.4,
        ),
        "audioset_mel": Preset(
            source=_AUDIOSET_SOURCE
            + "4,800 points of a mel spectrogram, by our choice "
            "60 frames x 80 bins.",
            encoder=_AUDIOSET.replace({"modality": _MEL_SPECTROGRAM}),
            num_classes=527,
            parameters=107_432_017,
            num_inputs=4_800,
            gflops=133.3,
        ),
        "audioset_video": Preset(
            source=_AUDIOSET_SOURCE + "32 frames of 224x224 in patches of 2x8x8.",
            encoder=_AUDIOSET.replace({"modality": _VIDEO}),
            num_classes=527,
            parameters=111_643_729,
            num_inputs=12_544,
            gflops=227.1,
        ),
        "audioset_raw_video": Preset(
            source=_AUDIOSET_SOURCE + "Raw audio and video, which training drops for "
            "30 % of the examples.",
            encoder=_AUDIOSET.replace({"modality": _with_video(_RAW_AUDIO)}),
            num_classes=527,
            parameters=111_685_411,
            num_inputs=13_024,
            gflops=231.7,
        ),
        "audioset_mel_video": Preset(
            source=_AUDIOSET_SOURCE + "Mel spectrogram as in audioset_mel, and video, "
            "which training drops for 30 % of the examples.",
            encoder=_AUDIOSET.replace({"modality": _with_video(_MEL_SPECTROGRAM)}),
            num_classes=527,
            parameters=111_685_409,
            num_inputs=17_344,
            gflops=266.2,
        ),
        "modelnet40": Preset(
            source="Jaegle et al., 2021, section 4.3: 64 bands, maximum frequency 1120. "
            "Any number of points (about 2,000 in the paper, 2,048 for the counts). Our "
            "choice: latents and heads, as on ImageNet.",
            encoder=_IMAGENET.replace(
                {"num_blocks": 2, "modality": Config(PointCloud)}
            ),
            num_classes=40,
            parameters=44_772_202,
            num_inputs=2_048,
            gflops=101.8,
        ),
        "tiny": Preset(
            source=_SIZE_SOURCE.format("first tries"),
            encoder=_sized(num_latents=16, latent_dim=32, num_blocks=1),
            num_classes=10,
            parameters=23_448,
            num_inputs=256,
            gflops=0.00354,
        ),
        "small": Preset(
            source=_SIZE_SOURCE.format("hundreds to tens of thousands of examples"),
            encoder=_sized(num_latents=32, latent_dim=96, num_blocks=2),
            num_classes=10,
            parameters=181_350,
            num_inputs=256,
            gflops=0.02657,
        ),
        "digits": Preset(
            source="Our choice, for scikit-learn's 8x8 digits on two CPU cores.",
            encoder=Config(
                Perceiver,
                modality=Config(Image, shape=(8, 8, 1), num_bands=4),
                num_latents=8,
                latent_dim=64,
                num_blocks=2,
                num_self_attends_per_block=2,
                # Elements have a width of 19, which is too narrow for several heads.
                cross_attend=Config(CrossAttend, num_heads=8, qk_dim=64, dropout=0.1),
                self_attend=Config(SelfAttend, num_heads=4, dropout=0.1),
            ),
            num_classes=10,
            parameters=90_582,
            num_inputs=64,
            gflops=0.00305,
        ),
    }
)


def built_in(name):
    """Returns the preset of a name.

    Raises:
        ValueError: if there is none.
    """
    if name not in PRESETS:
        raise ValueError(
            "`name` must be a preset, a folder, or 'hf://<owner>/<model>'. Received: "
            f"name={name!r}. "
            f"{nearest(name, PRESETS) or f'The presets are {sorted(PRESETS)}.'}"
        )
    return PRESETS[name]
