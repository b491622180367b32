"""Preprocessor of audio files."""

from __future__ import annotations

import io
import wave

import keras

from keras_perceiver._checks import check_positive
from keras_perceiver.modalities.preprocessors.base import (
    Preprocessor,
)
from keras_perceiver.modalities.preprocessors.file_rules import FileRule, first_error
from keras_perceiver.modalities.preprocessors.sounds import (
    check_size,
    read_sound,
    resampled,
)
from keras_perceiver.modalities.preprocessors.wav import (
    check_whole,
    read_16_bit,
    read_16_bit_in_graph,
)

_IS_MONO = FileRule("Files must be mono.", "{} channels", "Mix them down to one")
_FULL_SCALE = 2**15


@keras.saving.register_keras_serializable(package="keras_perceiver")
class AudioPreprocessor(Preprocessor):
    """Reads mono audio files as waveforms in -1..1.

    It reads 16-bit WAV (also WAVE_FORMAT_EXTENSIBLE), and with
    `pip install "keras_perceiver[audio]"` WAV of any bit depth and of floats, FLAC, OGG
    (Vorbis, Opus), MP3 and AIFF. Samples beyond -1..1, which decoders of MP3 and OGG may
    return, are clipped. In a graph, such as that of a served model, only 16-bit WAV
    files of `sample_rate` are decoded.

    Reference:
        [soundfile](https://python-soundfile.readthedocs.io) decodes files on the host,
        and [soxr](https://python-soxr.readthedocs.io) resamples them.

    Args:
        sample_rate: Integer, in hertz. A file with another rate is an error unless
            `resample=True`.
        num_samples: Integer, length in samples. Longer files are truncated. Shorter
            files are padded at the end if there is a mask, and an error otherwise.
            `None` allows files of any length.
        use_mask: Boolean, whether waveforms have a mask. Defaults to `True` for files of
            any length, and to `False` otherwise.
        resample: Boolean, whether to resample files with other rates.
        max_samples: Integer, maximum number of samples over all channels. It is checked
            before a file is decoded.

    Returns:
        `read` returns the waveform as a float32 array of shape `(samples,)`.

    Raises:
        ValueError: if a number is not positive, if `use_mask` is `False` for files of
            any length, or, in `read`, if a file is invalid.

    Example:

    >>> preprocessor = AudioPreprocessor(sample_rate=8000, num_samples=400)
    >>> suffix, content = preprocessor.random_file(np.random.default_rng(0))
    >>> suffix, preprocessor.read_content(content).shape
    ('.wav', (400,))
    """

    input_name = "audio"
    suffixes = (".aif", ".aiff", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav")
    file_kind = "a WAV, FLAC, OGG, MP3 or AIFF sound"
    value_range = (-1.0, 1.0)

    def __init__(
        self,
        sample_rate: int,
        num_samples: int | None = None,
        use_mask: bool | None = None,
        resample: bool = False,
        max_samples: int = 200_000_000,
    ) -> None:
        check_positive(sample_rate=sample_rate, max_samples=max_samples)
        self._set_length("num_samples", num_samples, use_mask)
        self.sample_rate = sample_rate
        self.num_samples = num_samples
        self.resample = resample
        self.max_samples = max_samples
        self.shape = (num_samples,)

    @property
    def graph_file_kind(self):
        return f"a 16-bit WAV of {self.sample_rate} hertz"

    @property
    def _rate_rule(self):
        return FileRule(
            f"Files must have `sample_rate={self.sample_rate}` hertz.",
            "sample_rate={}",
            "Resample the file, or on the host set `resample=True`",
        )

    def _check_rate(self, rate):
        is_valid = rate > 0 if self.resample else rate == self.sample_rate
        self._rate_rule.check(is_valid, rate)

    def decode(self, content, suffix=""):
        check_whole(content)
        found = read_16_bit(content)
        if found is None:
            audio, rate = read_sound(content, self._check_rate, self.max_samples)
        else:
            samples, rate = found
            self._check_rate(rate)
            check_size(samples.size, self.max_samples)
            audio = samples.astype("float32") / _FULL_SCALE  # (samples, channels)
        _IS_MONO.check(audio.shape[1] == 1, audio.shape[1])
        if rate != self.sample_rate:
            check_size(len(audio) * self.sample_rate // rate, self.max_samples)
            audio = resampled(audio, rate, self.sample_rate)
        return audio

    def decode_in_graph(self, content):
        import tensorflow as tf

        audio, rate, error = read_16_bit_in_graph(content)
        num_channels = tf.shape(audio)[1]
        is_valid = tf.equal(error, "")
        return audio, first_error(
            error,
            self._rate_rule.error(~is_valid | tf.equal(rate, self.sample_rate), rate),
            _IS_MONO.error(tf.equal(num_channels, 1), num_channels),
        )

    def convert(self, array):
        return array[: self.num_samples, 0]

    def other_problems(self, modality):
        rate = getattr(modality, "sample_rate", None)
        if rate == self.sample_rate:
            return []
        return [f"sample_rate={self.sample_rate} for {rate}"]

    def random_file(self, rng, max_length=None):
        length = self.num_samples or max_length
        if rng.integers(3) and self.use_mask:
            length = int(rng.integers(1, length + 1))
        elif rng.integers(3) and self.num_samples is not None:
            length += int(rng.integers(1, 10))
        samples = rng.integers(-(2**15), 2**15, length, "int16")
        content = io.BytesIO()
        with wave.open(content, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(samples.itemsize)
            file.setframerate(self.sample_rate)
            file.writeframes(samples.astype("<i2").tobytes())
        return ".wav", content.getvalue()
