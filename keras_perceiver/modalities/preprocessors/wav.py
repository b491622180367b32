"""Reading of 16-bit WAV files by their chunks, on the host and in a graph."""

import numpy as np

from keras_perceiver.modalities.preprocessors.file_rules import FileRule, first_error

# WAVE_FORMAT_PCM, and WAVE_FORMAT_EXTENSIBLE with the offset of its sub-format.
_PCM, _EXTENSIBLE, _SUB_FORMAT = 1, 0xFFFE, 24
# Minimum size of a `fmt ` chunk, and the number of bytes that are read.
_FORMAT_BYTES, _READ_FORMAT_BYTES = 16, 26
# Programs that write to a pipe do not know the size.
_UNKNOWN_SIZE = 2**32 - 1

_IS_WHOLE = FileRule(
    "A file must have all samples that its header declares.",
    "{} bytes of {}",
    "Repair or remove the file",
)
_HAS_DATA = FileRule(_IS_WHOLE.rule, "no bytes of samples", _IS_WHOLE.fix)
_IS_WAV = FileRule(
    "Audio must be WAV files if TensorFlow decodes it.",
    "other content",
    "Convert the file, and send its bytes undamaged",
)
_IS_16_BIT = FileRule(
    "Audio must be 16-bit PCM if TensorFlow decodes it.",
    "format {} of {} bits",
    "Convert the file, or send an array",
)


def check_whole(content):
    """Raises `FileRuleError` if a WAV or AIFF file is truncated."""
    kind = content[:4], content[8:11]
    order = {(b"RIFF", b"WAV"): "little", (b"FORM", b"AIF"): "big"}.get(kind)
    if order is None:
        return
    place, size = _chunk(content, (b"data", b"SSND"), order)
    _HAS_DATA.check(place is not None)
    is_stream = size == _UNKNOWN_SIZE
    found = min(size, len(content) - place)
    _IS_WHOLE.check(is_stream or found == size, found, size)


def read_16_bit(content):
    """Returns the samples of a 16-bit WAV file, or `None` for other files.

    Args:
        content: Bytes of a file that is not truncated.

    Returns:
        Pair of an int16 array of shape `(samples, channels)` and the sample rate in
        hertz, or `None`.
    """
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return None
    place, size = _chunk(content, (b"fmt ",), "little")
    if place is None or size < _FORMAT_BYTES:
        return None
    header = np.frombuffer(
        content[place : place + size].ljust(_READ_FORMAT_BYTES, b"\0"), "<u2", 13
    )
    tag, num_channels = int(header[0]), int(header[1])
    if tag == _EXTENSIBLE:
        tag = int(header[_SUB_FORMAT // 2])
    if tag != _PCM or header[7] != 16 or num_channels == 0:
        return None
    rate = int(header[2:4].view("<u4")[0])
    place, size = _chunk(content, (b"data",), "little")
    size = min(size, len(content) - place) // (2 * num_channels) * 2 * num_channels
    samples = np.frombuffer(content, "<i2", size // 2, place)
    return samples.reshape(-1, num_channels), rate


def _chunk(content, names, order):
    """Returns offset and size of the first chunk with these names, or `None, None`."""
    place = 12
    while place + 8 <= len(content):
        size = int.from_bytes(content[place + 4 : place + 8], order)
        if content[place : place + 4] in names:
            return place + 8, size
        place += 8 + size + size % 2  # chunks start at even offsets
    return None, None


def read_16_bit_in_graph(content):
    """Returns the samples of a 16-bit WAV file as a tensor.

    TensorFlow's own decoder rejects chunks of odd sizes and WAVE_FORMAT_EXTENSIBLE.

    Args:
        content: String scalar.

    Returns:
        Tuple of a float32 tensor of shape `(samples, channels)` in -1..1, the sample
        rate in hertz, and a string scalar, the error of the file or `""`.
    """
    import tensorflow as tf

    length = tf.strings.length(content)
    padded = tf.strings.join([content, tf.constant(bytes(64))])
    is_wav = tf.equal(tf.strings.substr(padded, 0, 4), "RIFF")
    is_wav &= tf.equal(tf.strings.substr(padded, 8, 4), "WAVE")
    place, size = _chunk_in_graph(padded, b"fmt ", length)
    is_wav &= size >= _FORMAT_BYTES
    header = tf.strings.substr(padded, place, _READ_FORMAT_BYTES)
    header = tf.cast(tf.io.decode_raw(header, tf.uint16), "int32")
    num_channels = header[1]
    is_extensible = tf.equal(header[0], _EXTENSIBLE)
    tag = tf.where(is_extensible, header[_SUB_FORMAT // 2], header[0])
    is_16_bit = tf.equal(tag, _PCM) & tf.equal(header[7], 16)
    rate = header[2] + header[3] * 2**16

    place, size = _chunk_in_graph(padded, b"data", length)
    is_stream = tf.equal(size, _UNKNOWN_SIZE)
    found = tf.minimum(size, tf.cast(length - place, "int64"))
    error = first_error(
        _IS_WAV.error(is_wav & (num_channels > 0)),
        _HAS_DATA.error(size >= 0),
        _IS_WHOLE.error(is_stream | tf.equal(found, size), found, size),
        _IS_16_BIT.error(is_16_bit, tag, header[7]),
    )

    def samples():
        num_bytes = tf.cast(found, "int32") // (2 * num_channels) * 2 * num_channels
        data = tf.strings.substr(content, place, num_bytes)
        samples = tf.io.decode_raw(data, tf.int16)  # little-endian by default
        samples = tf.reshape(samples, [-1, num_channels])
        return tf.cast(samples, "float32") / 2**15  # (samples, channels)

    # `substr` rejects the position at the end of a string.
    is_read = tf.equal(error, "") & (found > 0)
    audio = tf.cond(is_read, samples, lambda: tf.zeros((0, 1)))
    return tf.ensure_shape(audio, (None, None)), rate, error


def _chunk_in_graph(padded, name, length):
    """Returns the offset and the int64 size of the first chunk with a name.

    The size is -1 if there is none.
    """
    import tensorflow as tf

    def size_at(place):
        size = tf.io.decode_raw(tf.strings.substr(padded, place + 4, 4), tf.uint8)
        return tf.reduce_sum(tf.cast(size, "int64") * [1, 1 << 8, 1 << 16, 1 << 24])

    def is_other(place):
        is_inside = place + 8 <= length
        return is_inside & tf.not_equal(tf.strings.substr(padded, place, 4), name)

    def following(place):
        size = size_at(place)
        after = tf.cast(place, "int64") + 8 + size + size % 2
        return tf.cast(tf.minimum(after, tf.cast(length, "int64")), "int32")

    place = tf.minimum(12, length)
    place = tf.while_loop(is_other, lambda place: (following(place),), (place,))[0]
    is_found = place + 8 <= length
    size = tf.where(is_found, size_at(place), tf.constant(-1, "int64"))
    return tf.where(is_found, place + 8, 0), size
