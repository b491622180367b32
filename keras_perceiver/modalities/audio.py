"""Raw audio, and the base class of modalities that take a waveform."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_perceiver._checks import check_positive
from keras_perceiver.modalities.drawing import draw_line
from keras_perceiver.modalities.patches import group, pad_to_multiple
from keras_perceiver.modalities.preprocessors.audio import AudioPreprocessor
from keras_perceiver.modalities.series import Series


class Waveform(Series):
    """Base class of modalities that take a waveform."""

    input_name = "audio"
    scale_fix = "Samples of 16 bits become `inputs / 32768`."
    shape_fix = (
        "Crop, pad or resample the audio, or create the modality for this length."
    )

    def __init__(self, num_samples, sample_rate, **kwargs):
        check_positive(num_samples=num_samples, sample_rate=sample_rate)
        super().__init__(num_samples, **kwargs)
        self.num_samples = num_samples
        self.sample_rate = sample_rate

    def file_preprocessor(self):
        return AudioPreprocessor(self.sample_rate, self.num_samples, self.use_mask)

    @property
    def duration(self):
        """Maximum length, in seconds."""
        return self.num_samples / self.sample_rate

    @property
    def shape_rule(self):
        at_most = "up to " if self.use_mask else ""
        return (
            f"Waveforms must have shape `(batch, samples)` with {at_most}"
            f"{self.num_samples} samples."
        )


@keras.saving.register_keras_serializable(package="keras_perceiver")
class Audio(Waveform):
    """Raw waveforms as elements: groups of samples with position features.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 4.2: 61,440
        samples at 48 kHz (1.28 s) become 480 elements of 128 samples.

    Args:
        num_samples: Integer, length in samples. With `use_mask`, it is the maximum
            length: batches may be shorter, and positions are those of the maximum
            length. The last element is padded with zeros.
        sample_rate: Integer, samples per second (hertz).
        patch_size: Integer, number of consecutive samples per element.
        **kwargs: Arguments of `Modality` (`num_bands`, `max_resolution`,
            `position_encoding`, `use_mask`, `projection_dim` and `use_added_positions`)
            and of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape `(batch, samples)` with values from -1 to 1.
        inputs_mask: Boolean tensor of shape `(batch, samples)`, `False` for padding,
            which is set to zero, or `None`.

    Returns:
        Tensor of shape `(batch, num_inputs, input_dim)`, where `num_inputs` is the
        number of elements, and `input_dim` is `patch_size` plus the number of position
        features.

    Raises:
        ValueError: if a size is not positive, if both Fourier settings and
            `position_encoding` are given, or if `inputs` has another length.

    Example:

    >>> sounds = keras.random.uniform((2, 1000), -1, 1)
    >>> tuple(Audio(1000, sample_rate=8000, patch_size=16, num_bands=6)(sounds).shape)
    (2, 63, 29)
    """

    def __init__(
        self, num_samples: int, sample_rate: int, patch_size: int = 128, **kwargs: Any
    ) -> None:
        super().__init__(num_samples, sample_rate, **kwargs)
        check_positive(patch_size=patch_size)
        self.patch_size = patch_size

    @property
    def element_dim(self):
        return self.patch_size

    def grid_of(self, lengths):
        return tuple(n and -(-n // self.patch_size) for n in lengths)

    def elements(self, inputs):
        samples = pad_to_multiple(inputs, self.patch_size)[..., None]
        return group(samples, (self.patch_size,))

    def elements_mask(self, inputs_mask):
        """Returns which elements have a sample that is not padding, `(B, M)`."""
        return ops.any(self.elements(ops.cast(inputs_mask, "bool")), axis=-1)

    def draw(self, axis, weights, inputs, inputs_mask=None, maximum=None):
        draw_line(axis, weights, inputs, self.sample_rate, maximum)
