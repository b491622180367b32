"""Reading of audio files other than 16-bit WAV, by soundfile."""

import contextlib
import io

import numpy as np

from keras_perceiver.modalities.preprocessors.file_rules import IS_FINITE, FileRule

# libsndfile's names of the formats of `AudioPreprocessor.suffixes`.
_FORMATS = ("AIFF", "FLAC", "MP3", "OGG", "WAV", "WAVEX")
_MAGIC = (b"FORM", b"OggS", b"RIFF", b"fLaC")
_FRAMES_AT_ONCE = 2**20
# libsndfile reports more frames than this if their number is unknown.
_MANY_FRAMES = 2**62
# 20 decibels above full scale. Louder samples are unscaled integers.
_MAX_PEAK = 10.0
_END_OF_STREAM = 4

_IS_KNOWN = FileRule(
    "Audio files must be WAV, FLAC, OGG, MP3 or AIFF.", "{}", "Convert the file"
)
_IS_WHOLE = FileRule(
    "A file must have all samples that its header declares.",
    "{} samples of {}",
    "Repair or remove the file",
)
_HAS_END = FileRule(
    "An OGG file must have its last page.", "none", "Repair or remove the file"
)
_IS_FULL_SCALE = FileRule(
    "Samples must be in -1..1.",
    "a peak of {:.4g}",
    "Divide them by the full scale of the integers",
)


def read_sound(content, check_rate, max_samples):
    """Returns the samples of an audio file.

    Args:
        content: Bytes.
        check_rate: Callable that takes the sample rate in hertz, before anything is
            decoded, and raises an error if it is invalid.
        max_samples: Integer, maximum number of samples over all channels.

    Returns:
        Pair of a float32 array of shape `(samples, channels)` and the sample rate.

    Raises:
        ImportError: if soundfile is not installed.
    """
    is_mpeg = content[:3] == b"ID3" or content[:2] >= b"\xff\xe0"
    _IS_KNOWN.check(is_mpeg or content[:4] in _MAGIC, "other content")
    with _extra("soundfile", "Audio files other than 16-bit WAV are read"):
        import soundfile

    with soundfile.SoundFile(io.BytesIO(content)) as file:
        _IS_KNOWN.check(file.format in _FORMATS, file.format)
        check_rate(file.samplerate)
        rate, num_frames = file.samplerate, file.frames
        is_told = num_frames < _MANY_FRAMES
        check_size(num_frames * file.channels if is_told else 0, max_samples)
        blocks, num_samples = [], 0
        while not blocks or len(blocks[-1]):
            block = file.read(_FRAMES_AT_ONCE, dtype="float32", always_2d=True)
            num_samples += block.size
            check_size(num_samples, max_samples)
            blocks.append(block)
        is_float = file.subtype in ("FLOAT", "DOUBLE")
    samples = np.concatenate(blocks)
    _IS_WHOLE.check(not is_told or len(samples) == num_frames, len(samples), num_frames)
    if content.startswith(b"OggS"):
        flags = content[content.rindex(b"OggS") + 5 :][:1]
        _HAS_END.check(flags and flags[0] & _END_OF_STREAM)
    peak = np.abs(samples).max(initial=0.0)
    IS_FINITE.check(np.isfinite(peak))  # clipping would hide it
    _IS_FULL_SCALE.check(not is_float or peak <= _MAX_PEAK, peak)
    # Decoders of MP3 and OGG overshoot, and so may floats.
    return np.clip(samples, -1.0, 1.0), rate


def resampled(samples, rate, new_rate):
    """Returns samples of shape `(samples, channels)` at another rate in hertz."""
    with _extra("soxr", "Audio is resampled"):
        import soxr

    return np.clip(soxr.resample(samples, rate, new_rate), -1.0, 1.0)


def check_size(num_samples, max_samples):
    """Raises `FileRuleError` if there are too many samples over all channels."""
    FileRule(
        f"Audio files must have at most `max_samples={max_samples}` samples.",
        "{}",
        "Split the file, or set `max_samples`",
    ).check(num_samples <= max_samples, num_samples)


@contextlib.contextmanager
def _extra(name, what):
    """Context in which import errors name the extra that must be installed."""
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"{what} with {name}, which is not installed. "
            'Install it with `pip install "keras_perceiver[audio]"`.'
        ) from error
