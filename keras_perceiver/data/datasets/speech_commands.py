"""Speech Commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from keras_perceiver.data.crops import time_crop
from keras_perceiver.data.datasets._published import published_splits
from keras_perceiver.modalities import AudioPreprocessor

if TYPE_CHECKING:
    from keras_perceiver._typing import PathLike
    from keras_perceiver.data.splits import Splits

_SAMPLE_RATE = 16_000  # hertz


def speech_commands(
    batch_size: int,
    seed: int = 0,
    folder: PathLike | None = None,
    mock: bool = False,
    num_samples: int = 16_000,
    preprocessor: AudioPreprocessor | None = None,
    **options: Any,
) -> Splits:
    """Returns Speech Commands: spoken words of 16,000 samples at 16 kHz, in 12 classes.

    Shorter recordings are padded with silence at the end. For training, they are at a
    random position, and their volume varies.

    Source: [speech_commands](https://www.tensorflow.org/datasets/catalog/speech_commands)
    of TensorFlow Datasets, with its published splits.

    Args:
        batch_size: Integer, examples per batch.
        seed: Integer, seed of the shuffling and of the augmentation.
        folder: Path of the prepared data.
        mock: Boolean, whether to use random examples.
        num_samples: Integer, length of an example in samples.
        preprocessor: `AudioPreprocessor` of that length. Defaults to one for 16 kHz.
        **options: Arguments of `tfds_splits`, such as `download=True`.

    Returns:
        `Splits`. Waveforms are float32 in -1..1, of shape `(batch, num_samples)`, labels
        int32 of shape `(batch,)`.

    Raises:
        FileNotFoundError: if the data are not prepared.
        ValueError: as `tfds_splits`.
    """
    preprocessor = preprocessor or AudioPreprocessor(_SAMPLE_RATE, num_samples)
    # Up to a tenth of a second earlier or later.
    margin = num_samples // 10
    cut = time_crop(num_samples)

    def waveform(example):
        audio = tf.cast(example["audio"][:, None], "float32") / 2**15
        audio = preprocessor.convert(audio)
        audio = tf.pad(audio, [[0, num_samples - tf.shape(audio)[0]]])
        return tf.ensure_shape(audio, [num_samples])

    def prepare(example):
        return waveform(example), tf.cast(example["label"], "int32")

    def augment(audio, key):
        audio = cut(tf.pad(audio, [[0, 0], [margin, margin]]), key)
        shape = (tf.shape(audio)[0], 1)
        gain = tf.random.stateless_uniform(shape, [key, 1], 0.5, 1.2)
        return tf.clip_by_value(audio * gain, -1.0, 1.0)

    def random_example(rng):
        size = rng.integers(12_000, 16_001)
        audio = rng.integers(-(2**12), 2**12, size).astype("int16")
        return {"audio": audio, "label": rng.integers(12)}

    return published_splits(
        "speech_commands",
        batch_size,
        seed,
        folder,
        mock and random_example,
        {"train_split": "train", "validation_split": "validation", **options},
        preprocessor=preprocessor,
        prepare=prepare,
        augment=augment,
    )
