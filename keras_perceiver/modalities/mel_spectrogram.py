"""Mel spectrograms of audio, with SpecAugment."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_perceiver._checks import check_positive
from keras_perceiver.layers.seeds import DrawnSeed, draw_seed
from keras_perceiver.modalities.audio import Waveform
from keras_perceiver.modalities.drawing import (
    covered_cells,
    draw_over_picture,
    label_seconds,
)
from keras_perceiver.modalities.patches import group, pad_to_multiple, per_axis

# Power of a mel bin that counts as silence, -80 dB relative to a full-scale tone.
_SILENCE = 1e-8


@keras.saving.register_keras_serializable(package="keras_perceiver")
class MelSpectrogram(Waveform):
    """Raw waveforms as elements: points or patches of a mel spectrogram.

    Frame i starts at sample `i * frame_step` and consists of `frame_length` samples
    under a Hann window, padded with zeros at the end. Powers are summed by a mel filter
    bank (HTK's scale) and converted to decibels: 0 dB, a sine of amplitude 1, becomes
    1, and -80 dB or less becomes -1. The result for an example does not depend on other
    examples of its batch or on their length. It is computed in float32 under every
    dtype policy.

    With `time_masks` or `frequency_masks`, training masks random spans of frames or mel
    bins with silence, independently per example. This is SpecAugment without time
    warping, which its authors found to help least.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 4.2: 4,800
        elements for 61,440 samples at 48 kHz.
        [Park et al., 2019](https://arxiv.org/abs/1904.08779): SpecAugment.

    Args:
        num_samples: Integer, length in samples. With `use_mask`, it is the maximum
            length: batches may be shorter, and positions are those of the maximum
            length.
        sample_rate: Integer, samples per second (hertz).
        num_mel_bins: Integer, number of filters on the mel scale.
        frame_length: Integer, samples per frame.
        frame_step: Integer, samples from one frame to the next, at most `frame_length`.
        min_frequency: Float, lower edge of the first filter, in hertz.
        max_frequency: Float, upper edge of the last filter, in hertz. Defaults to half
            the sample rate.
        patch_size: Integer or pair of integers, number of frames and mel bins per
            element. `num_mel_bins` must be a multiple of it. Frames are padded with
            silence.
        time_masks: Pair of integers, number of masked spans of frames and their maximum
            length. Lengths are uniform from 0. Defaults to no masking.
        frequency_masks: Pair of integers, the same for spans of mel bins.
        seed: Integer, seed of the masked spans. Defaults to a random seed.
        **kwargs: Arguments of `Modality` (`num_bands`, `max_resolution`,
            `position_encoding`, `use_mask`, `projection_dim` and `use_added_positions`)
            and of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape `(batch, samples)` with values from -1 to 1.
        inputs_mask: Boolean tensor of shape `(batch, samples)`, `False` for padding,
            which is set to zero, or `None`. A frame is padding if its first
            `frame_step` samples are.
        training: Boolean, whether to mask spans.

    Returns:
        Tensor of shape `(batch, num_inputs, input_dim)`, where `num_inputs` is the
        number of elements, mel bins fastest, and `input_dim` is the number of values of
        an element plus that of position features.

    Raises:
        ValueError: if a size is not positive, if `num_mel_bins` is not a multiple of
            the patch size, if the frequencies are not in order or so close that a
            filter is empty, if masks are not two positive integers or are longer than
            the spectrogram, if both Fourier settings and `position_encoding` are given,
            or if `inputs` has another length.

    Example:

    >>> sounds = keras.random.uniform((2, 8000), -1, 1)
    >>> mel = MelSpectrogram(8000, 8000, num_mel_bins=20, frame_length=400,
    ...                      frame_step=200, patch_size=(1, 5), num_bands=6)
    >>> tuple(mel(sounds).shape)
    (2, 160, 31)
    """

    def __init__(
        self,
        num_samples: int,
        sample_rate: int,
        num_mel_bins: int = 80,
        frame_length: int = 2048,
        frame_step: int = 1024,
        min_frequency: float = 20.0,
        max_frequency: float | None = None,
        patch_size: int | tuple[int, int] = 1,
        time_masks: tuple[int, int] | None = None,
        frequency_masks: tuple[int, int] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_samples, sample_rate, **kwargs)
        check_positive(
            num_mel_bins=num_mel_bins, frame_length=frame_length, frame_step=frame_step
        )
        if frame_step > frame_length:
            raise ValueError(
                "`frame_step` must not exceed `frame_length`. Received: "
                f"frame_step={frame_step}, frame_length={frame_length}. "
                "Increase `frame_length`, so that frames cover all samples."
            )
        self._patch_sizes = per_axis("patch_size", patch_size, 2)
        for size in self._patch_sizes:
            check_positive(patch_size=size)
        if num_mel_bins % self._patch_sizes[1]:
            raise ValueError(
                "`num_mel_bins` must be a multiple of the patch size along frequency. "
                f"Received: num_mel_bins={num_mel_bins}, patch_size={patch_size}. "
                "Change one of them."
            )
        highest = sample_rate / 2 if max_frequency is None else max_frequency
        if not 0 <= min_frequency < highest <= sample_rate / 2:
            raise ValueError(
                "Frequencies must be 0 <= `min_frequency` < `max_frequency` <= "
                f"`sample_rate` / 2. Received: min_frequency={min_frequency}, "
                f"max_frequency={max_frequency}, sample_rate={sample_rate}. "
                "Set them to frequencies that audio of this rate has."
            )
        self.num_mel_bins = num_mel_bins
        self.frame_length = frame_length
        self.frame_step = frame_step
        self.min_frequency = min_frequency
        self.max_frequency = max_frequency
        self.patch_size = (
            self._patch_sizes if isinstance(patch_size, (tuple, list)) else patch_size
        )
        self._filters = mel_filters(
            num_mel_bins, frame_length, sample_rate, min_frequency, highest
        )
        if not self._filters.any(axis=0).all():
            raise ValueError(
                "Every mel bin must contain a frequency of the frames. Received: "
                f"num_mel_bins={num_mel_bins}, frame_length={frame_length}, "
                f"sample_rate={sample_rate}, min_frequency={min_frequency}. "
                "Use fewer bins, longer frames or a higher `min_frequency`."
            )
        num_frames = -(-num_samples // frame_step)
        self.time_masks = _mask_sizes("time_masks", time_masks, num_frames)
        self.frequency_masks = _mask_sizes(
            "frequency_masks", frequency_masks, num_mel_bins
        )
        self.seed = seed
        if self.time_masks or self.frequency_masks:
            self.seed_generator = keras.random.SeedGenerator(seed)

    @property
    def element_dim(self):
        return self._patch_sizes[0] * self._patch_sizes[1]

    def grid_of(self, lengths):
        (length,) = lengths
        frames_size, bins_size = self._patch_sizes
        times = length and -(-length // (self.frame_step * frames_size))
        return (times, self.num_mel_bins // bins_size)

    def spectrogram(self, inputs):
        """Returns the mel spectrogram `(B, frames, bins)` of waveforms `(B, samples)`."""
        # `keras.layers.MelSpectrogram` clips relative to the maximum of the whole
        # batch, and pads the longest example by reflection.
        samples = ops.cast(inputs, "float32")
        rest = self.frame_length - self.frame_step
        samples = pad_to_multiple(samples, self.frame_step * self._patch_sizes[0], rest)
        real, imaginary = ops.stft(
            samples, self.frame_length, self.frame_step, self.frame_length, center=False
        )  # (B, frames, frequencies)
        # A Hann window of length n sums to n / 2, and a sine has two lines of half of
        # that.
        power = (ops.square(real) + ops.square(imaginary)) * (
            4 / self.frame_length
        ) ** 2
        power = ops.matmul(power, ops.cast(self._filters, "float32"))
        decibels = 10 * ops.log10(power + _SILENCE)  # (B, frames, bins)
        return decibels / 40 + 1

    def elements(self, inputs):
        return group(self.spectrogram(inputs)[..., None], self._patch_sizes)

    def augment(self, elements):
        if not (self.time_masks or self.frequency_masks):
            return elements
        shape = ops.shape(elements)[:3]  # (B, times, frequencies) of patches
        num_frames, num_bins = (
            n * size for n, size in zip(shape[1:], self._patch_sizes, strict=True)
        )
        times = self._spans(self.time_masks, shape[0], num_frames)
        bins = self._spans(self.frequency_masks, shape[0], num_bins)
        masked = ops.logical_or(times[:, :, None], bins[:, None])[..., None]
        return ops.where(group(masked, self._patch_sizes), -1.0, elements)

    def _spans(self, masks, batch_size, length):
        """Returns which positions of each example are masked, `(B, length)`."""
        if masks is None:
            return ops.zeros((batch_size, length), "bool")
        num, longest = masks
        seed = DrawnSeed(draw_seed(self.seed_generator))
        uniform = keras.random.uniform((batch_size, num, 2), seed=seed)
        # The start and the length of each span, (B, num, 1)
        sizes = ops.floor(uniform[..., :1] * (longest + 1))
        starts = ops.floor(uniform[..., 1:] * (ops.cast(length, "float32") - sizes + 1))
        places = ops.arange(length, dtype="float32")
        is_in = ops.logical_and(places >= starts, places < starts + sizes)
        return ops.any(is_in, axis=1)

    def elements_mask(self, inputs_mask):
        """Returns which elements have a frame that is not padding, `(B, M)`."""
        size = self.frame_step * self._patch_sizes[0]
        mask = pad_to_multiple(ops.cast(inputs_mask, "bool"), size)[..., None]
        mask = ops.any(group(mask, (size,)), axis=-1)  # (B, times)
        return ops.repeat(mask, self.grid[1], axis=1)

    def elements_at(self, axis, places, inputs):
        times, bins = self.grid_of(inputs.shape)
        return covered_cells(places[::-1], bins, times).T.reshape(-1)

    def draw(self, axis, weights, inputs, inputs_mask=None, maximum=None):
        spectrogram = ops.convert_to_numpy(self.spectrogram(inputs[None]))[0]
        if weights is not None:
            weights = weights.reshape(self.grid_of(inputs.shape)).T
        drawn = draw_over_picture(axis, weights, spectrogram.T, True, maximum)
        label_seconds(axis, len(inputs) / self.sample_rate)
        return drawn


def _mask_sizes(name, masks, length):
    """Returns number and maximum length of masked spans as a tuple, or `None`."""
    if masks is None:
        return None
    masks = tuple(masks)
    if len(masks) != 2:
        raise ValueError(
            f"`{name}` must be a pair, number and maximum length. Received: "
            f"{name}={masks}. Pass two integers."
        )
    check_positive(**{f"{name}[{i}]": n for i, n in enumerate(masks)})
    if masks[1] > length:
        raise ValueError(
            f"`{name}` must not be longer than the spectrogram. Received: {name}={masks} "
            f"for a length of {length}. Use shorter masks."
        )
    return masks


def mel_filters(num_mel_bins, frame_length, sample_rate, lowest, highest):
    """Returns the mel filter bank: the weight of each frequency in each bin, float64.

    Triangular filters of height 1 that overlap by half, evenly spaced on HTK's mel scale
    and linear in it, as in `keras.layers.MelSpectrogram`.

    Args:
        num_mel_bins: Integer, number of filters.
        frame_length: Integer, samples per frame.
        sample_rate: Integer, samples per second (hertz).
        lowest: Float, lower edge of the first filter, in hertz.
        highest: Float, upper edge of the last filter, in hertz.

    Returns:
        Array of shape `(frame_length // 2 + 1, num_mel_bins)`.
    """
    lines = np.arange(frame_length // 2 + 1) * sample_rate / frame_length
    edges = np.linspace(_mel(lowest), _mel(highest), num_mel_bins + 2)
    # In units of a filter's half width, from the center of the first filter.
    positions = (_mel(lines) - edges[1]) / (edges[1] - edges[0])
    distances = abs(positions[:, None] - np.arange(num_mel_bins))
    filters = np.maximum(1 - distances, 0)
    filters[0] = 0  # drops the DC component
    return filters


def _mel(hertz):
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)
