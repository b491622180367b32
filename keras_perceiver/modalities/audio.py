"""Audio as raw samples, and what all modalities of a waveform share."""

import keras
from keras import ops

from keras_perceiver._checks import check_positive
from keras_perceiver.modalities.base import Series, group, pad_to_multiple


class Waveform(Series):
    """Base of the modalities that read a waveform."""

    input_name = "audio"
    _fix = "Cut, pad or resample the sound, or make the modality for this length."

    def __init__(self, num_samples, sample_rate, *args, **kwargs):
        check_positive(num_samples=num_samples, sample_rate=sample_rate)
        super().__init__(num_samples, *args, **kwargs)
        self.num_samples = num_samples
        self.sample_rate = sample_rate

    @property
    def duration(self):
        """Length of the longest sound, in seconds."""
        return self.num_samples / self.sample_rate

    def _rule(self):
        at_most = "up to " if self.use_mask else ""
        return (
            f"Waveforms must have shape `(batch, samples)` with {at_most}"
            f"{self.num_samples} samples."
        )

    def get_config(self):
        return {
            **super().get_config(),
            "num_samples": self.num_samples,
            "sample_rate": self.sample_rate,
        }


@keras.saving.register_keras_serializable(package="keras_perceiver")
class Audio(Waveform):
    """Turns raw waveforms into elements: groups of samples with position features.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 4.2: 61,440
        samples at 48 kHz (1.28 s) are 480 elements of 128 samples.

    Args:
        num_samples: Integer, length in samples; with `use_mask` the greatest length. The
            last element is filled up with zeros.
        sample_rate: Integer, samples per second (hertz).
        patch_size: Integer, consecutive samples in an element.
        num_bands: Integer, number of Fourier frequencies. Defaults to 64. Only for
            Fourier features, so not together with `position_encoding`.
        max_resolution: Integer, see `FourierPositionEncoding`. Defaults to the number of
            elements.
        position_encoding: Layer that is called on a tensor of shape
            `(batch, num_inputs, patch_size)` and returns position features of shape
            `(batch, num_inputs, features)`, such as `LearnedPositionEncoding`. Needs
            `compute_output_shape`. Defaults to
            `FourierPositionEncoding(num_bands, max_resolution)`.
        use_mask: Boolean. `True` gives a model a second input, the `inputs_mask` of the
            call, under the modality's name and `"_mask"`, and lets batches be shorter
            than `num_samples`. Positions stay those of the greatest length.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape `(batch, samples)`, in -1 to 1.
        inputs_mask: Boolean tensor of shape `(batch, samples)`, `False` for padding,
            which is read as zeros, or `None`.

    Returns:
        Tensor of shape `(batch, num_inputs, input_dim)`, with `num_inputs` the number
        of elements and `input_dim` the samples of an element and its position features.

    Raises:
        ValueError: if a size is not positive, if both Fourier settings and
            `position_encoding` are given, or if `inputs` has another length.

    Example:

    >>> sounds = keras.random.uniform((2, 1000), -1, 1)
    >>> tuple(Audio(1000, sample_rate=8000, patch_size=16, num_bands=6)(sounds).shape)
    (2, 63, 29)
    """

    def __init__(
        self,
        num_samples,
        sample_rate,
        patch_size=128,
        num_bands=None,
        max_resolution=None,
        position_encoding=None,
        use_mask=False,
        **kwargs,
    ):
        super().__init__(
            num_samples,
            sample_rate,
            num_bands,
            max_resolution,
            position_encoding,
            use_mask,
            **kwargs,
        )
        check_positive(patch_size=patch_size)
        self.patch_size = patch_size

    @property
    def _element_dim(self):
        return self.patch_size

    def grid_of(self, lengths):
        return tuple(n and -(-n // self.patch_size) for n in lengths)

    def _elements(self, inputs):
        samples = pad_to_multiple(inputs, self.patch_size)[..., None]
        return group(samples, (self.patch_size,))

    def elements_mask(self, inputs_mask):
        """Returns which elements have a sample that is no padding, `(B, M)`."""
        return ops.any(self._elements(ops.cast(inputs_mask, "bool")), axis=-1)

    def get_config(self):
        return {**super().get_config(), "patch_size": self.patch_size}
