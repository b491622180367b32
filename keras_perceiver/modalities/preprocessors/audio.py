"""WAV files."""

import io
import wave

import keras
import numpy as np

from keras_perceiver._checks import check_positive
from keras_perceiver.modalities.preprocessors.base import (
    Preprocessor,
)
from keras_perceiver.modalities.preprocessors.file_rules import FileRule, first_error

_IS_WAV = FileRule(
    "Audio must be WAV files.",
    "other content",
    "Convert the file, and send its bytes undamaged",
)
_IS_MONO = FileRule("Files must be mono.", "{} channels", "Mix them down to one")
_IS_WHOLE = FileRule(
    "A file must be a 16-bit WAV with all its samples.",
    "{} bytes of {}",
    "Repair or remove the file",
)
_IS_16_BIT = FileRule("A file must be a 16-bit WAV.", "{} bits", "Convert the file")


@keras.saving.register_keras_serializable(package="keras_perceiver")
class AudioPreprocessor(Preprocessor):
    """Reads 16-bit mono WAV files as waveforms in -1..1.

    Reference:
        The standard library's `wave` decodes files on the host.

    Args:
        sample_rate: Integer, in hertz. A file of another rate is an error.
        num_samples: Integer. Longer files are cut at the end, shorter ones padded at
            the end if there is a mask, and an error if not. `None`: files of any length.
        use_mask: Boolean, whether a mask goes with the waveforms. Defaults to `True`
            for files of any length, else to `False`.

    Returns:
        `read` returns the waveform as a float32 array of shape `(samples,)`.

    Raises:
        ValueError: if a number is not positive, or if files of any length shall have no
            mask; by `read`, if a file is invalid.

    Example:

    >>> preprocessor = AudioPreprocessor(sample_rate=8000, num_samples=400)
    >>> suffix, content = preprocessor.random_file(np.random.default_rng(0))
    >>> suffix, preprocessor.read_content(content).shape
    ('.wav', (400,))
    """

    input_name = "audio"
    suffixes = (".wav",)
    file_kind = "a 16-bit WAV"
    value_range = (-1.0, 1.0)

    def __init__(self, sample_rate, num_samples=None, use_mask=None):
        check_positive(sample_rate=sample_rate)
        self._set_length("num_samples", num_samples, use_mask)
        self.sample_rate = sample_rate
        self.num_samples = num_samples
        self.shape = (num_samples,)

    @property
    def _rate_rule(self):
        return FileRule(
            f"Files must have `sample_rate={self.sample_rate}` hertz.",
            "sample_rate={}",
            "Resample the file",
        )

    def decode(self, content, suffix=""):
        with wave.open(io.BytesIO(content)) as file:
            rate, num_channels = file.getframerate(), file.getnchannels()
            num_bytes = file.getsampwidth()
            _IS_16_BIT.check(num_bytes == 2, 8 * num_bytes)
            size = file.getnframes() * num_channels * num_bytes
            samples = file.readframes(file.getnframes())
        _IS_WHOLE.check(len(samples) == size, len(samples), size)
        self._rate_rule.check(rate == self.sample_rate, rate)
        _IS_MONO.check(num_channels == 1, num_channels)
        audio = np.frombuffer(samples, "<i2").reshape(-1, num_channels)
        return audio.astype("float32") / 2**15  # (samples, channels)

    def decode_in_graph(self, content):
        import tensorflow as tf

        start = tf.strings.substr(tf.strings.join([content, " " * 12]), 0, 12)
        is_wav = tf.equal(tf.strings.substr(start, 0, 4), "RIFF")
        is_wav &= tf.equal(tf.strings.substr(start, 8, 4), "WAVE")
        audio, rate = tf.cond(
            is_wav,
            lambda: tuple(tf.audio.decode_wav(content)),
            lambda: (tf.zeros((0, 1)), self.sample_rate),
        )
        audio = tf.ensure_shape(audio, (None, None))
        num_channels = tf.shape(audio)[1]
        is_mono = tf.equal(num_channels, 1) | tf.equal(tf.shape(audio)[0], 0)
        return audio, first_error(
            _IS_WAV.error(is_wav),
            self._rate_rule.error(tf.equal(rate, self.sample_rate), rate),
            _IS_MONO.error(is_mono, num_channels),
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

    def get_config(self):
        return {
            **super().get_config(),
            "sample_rate": self.sample_rate,
            "num_samples": self.num_samples,
            "use_mask": self.use_mask,
        }
