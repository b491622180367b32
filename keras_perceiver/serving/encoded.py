"""Files as they are, JPEG or WAV, decoded in the graph as the readers in `data` do."""

import numpy as np
import tensorflow as tf

from keras_perceiver.data import AudioFiles, ImageFiles
from keras_perceiver.modalities import Audio, Image, MelSpectrogram
from keras_perceiver.serving.requests import checked, examples, require

# An image may be small as a file and larger than the server's memory when decoded. A
# camera's 24 megapixels pass.
_MAX_PIXELS = 25_000_000
# Files of a batch that are decoded at once.
_DECODED_AT_ONCE = 8
_HEADER_BYTES = 32


def can_decode(reader):
    """Tells whether the graph can do what a reader does."""
    return type(reader) in (ImageFiles, AudioFiles)


def default_readers(modalities):
    """Returns readers for the modalities that come from files of one kind.

    Args:
        modalities: Dict of modality layers by name.

    Returns:
        Dict from names to readers; modalities of other kinds are not in it.
    """
    readers = {}
    for name, modality in modalities.items():
        if isinstance(modality, Image) and None not in modality.shape:
            readers[name] = ImageFiles(modality.shape)
        elif isinstance(modality, (Audio, MelSpectrogram)):
            readers[name] = AudioFiles(
                modality.sample_rate, modality.num_samples, use_mask=modality.use_mask
            )
    return readers


def reader_to_config(reader):
    """Returns a reader as what JSON can hold."""
    if type(reader) is ImageFiles:
        arguments = {
            "shape": reader.shape,
            "crop_to_aspect_ratio": reader.crop_to_aspect_ratio,
        }
    else:
        arguments = {
            "sample_rate": reader.sample_rate,
            "num_samples": reader.shape[0],
            "use_mask": reader.use_mask,
        }
    return {"reader": type(reader).__name__, **arguments}


def reader_from_config(config):
    """Returns the reader that `reader_to_config` was given."""
    arguments = dict(config)
    return {"ImageFiles": ImageFiles, "AudioFiles": AudioFiles}[
        arguments.pop("reader")
    ](**arguments)


def check_readers(signature, readers, modalities):
    """Raises unless a signature can decode what the model reads.

    Args:
        signature: String, the signature's name.
        readers: Dict from modality name to reader.
        modalities: Dict of modality layers by name.

    Raises:
        TypeError: if a reader is of another class.
        ValueError: if there is no such modality, or if it reads something else.
    """
    for name, reader in readers.items():
        if not can_decode(reader):
            raise TypeError(
                "A signature can decode what `ImageFiles` and `AudioFiles` read. "
                f"Received: {reader!r} of type {type(reader).__name__} for {name!r} in "
                f"the signature {signature!r}. Leave it out; clients then send arrays."
            )
        if name not in modalities:
            raise ValueError(
                f"`signatures` must name modalities of the model, {list(modalities)}. "
                f"Received: {name!r} in the signature {signature!r}. Correct the name."
            )
        modality = modalities[name]
        if isinstance(reader, ImageFiles):
            fits = isinstance(modality, Image) and all(
                expected in (None, size)
                for size, expected in zip(reader.shape, modality.shape, strict=True)
            )
        else:
            fits = (
                isinstance(modality, (Audio, MelSpectrogram))
                and reader.sample_rate == modality.sample_rate
                and reader.use_mask <= modality.use_mask
                and reader.shape[0] in (None, modality.num_samples)
            )
        if not fits:
            raise ValueError(
                "A reader must make what the modality reads: shape, sample rate, number "
                f"of samples, mask. Received: {reader_to_config(reader)} for {name!r}, "
                f"{modality.get_config()}, in the signature {signature!r}. Give the "
                "reader of the evaluation data."
            )


def decode(name, contents, reader, use_mask):
    """Decodes a batch of files, in the graph.

    Args:
        name: String, the input's name.
        contents: String tensor, of any shape.
        reader: `ImageFiles` or `AudioFiles`.
        use_mask: Boolean, whether to return a mask.

    Returns:
        Dict with a float32 tensor `name`, the batch that the reader would make, and
        with `use_mask` its mask.
    """
    shape = tf.shape(contents)

    def wrong_shape():
        return tf.strings.format(
            f"`{name}` must have shape (batch): the bytes of one file an example. "
            "Received: shape {}. Send a list of files.",
            shape,
        )

    has_shape = tf.equal(tf.size(shape), 1) & (tf.size(contents) > 0)
    contents = checked(contents, require(has_shape, wrong_shape))
    contents.set_shape((None,))
    contents = checked(
        contents,
        _require_each(
            tf.strings.length(contents) > 0,
            f"`{name}` must hold files. Received: no bytes",
            "Send the bytes of the file itself.",
        ),
    )
    if isinstance(reader, ImageFiles):
        images = _images(name, contents, reader)
        mask = {f"{name}_mask": tf.fill(tf.shape(images)[:-1], True)}
        return {name: images, **(mask if use_mask else {})}
    return _sounds(name, contents, reader, use_mask)


def _require_each(is_right, rule, fix, received=None):
    """Requires something of every example; the error names those that lack it."""

    def message():
        texts = [rule, " in examples ", examples(is_right)]
        if received is not None:
            values = tf.boolean_mask(received, ~is_right)
            texts += [" (", tf.strings.format("{}", values, summarize=10), ")"]
        return tf.strings.join([*texts, f" of the batch (counted from 0). {fix}"])

    return require(tf.reduce_all(is_right), message)


def _decode_each(contents, decode_one, missing):
    """Decodes the files of a batch at once, those that cannot be as `missing`.

    An operation that decodes fails without saying at which example. In a dataset the
    example is left out instead.

    Args:
        contents: String tensor of shape `(batch,)`.
        decode_one: Callable that turns a content into a tuple of tensors.
        missing: Tuple of tensors like them.

    Returns:
        Tensors with a batch axis, padded at the end where their lengths differ, and a
        boolean tensor, which could be decoded.
    """
    batch_size = tf.size(contents, out_type=tf.int64)
    numbers = tf.data.Dataset.range(batch_size)
    decoded = numbers.map(
        lambda number: (number, *decode_one(contents[number])),
        num_parallel_calls=_DECODED_AT_ONCE,
        deterministic=True,
    ).ignore_errors()
    # One more, so that there is a batch even if nothing was decoded.
    extra = tf.data.Dataset.from_tensors((batch_size, *missing))
    batch = decoded.concatenate(extra).padded_batch(batch_size + 1)
    options = tf.data.Options()
    options.autotune.enabled = False  # it is read once
    numbers, *tensors = batch.with_options(options).get_single_element()
    places = tf.scatter_nd(
        numbers[:, None], tf.range(1, tf.size(numbers) + 1), [batch_size + 1]
    )[:-1]  # 0 where there is none
    is_decoded = places > 0
    places = tf.where(is_decoded, places - 1, tf.size(numbers) - 1)
    return [tf.gather(x, places) for x in tensors], is_decoded


def _images(name, contents, reader):
    header = _headers(contents)
    is_image = tf.reduce_any([_begins(header, magic) for magic in _IMAGE_MAGIC], axis=0)
    contents = checked(
        contents,
        _require_each(
            is_image,
            f"`{name}` must hold images, JPEG, PNG, BMP or GIF. Received: others",
            "Convert the files, and send their bytes undamaged.",
        ),
    )
    height, width, channels = reader.shape
    blank = tf.zeros(reader.shape)

    def decode_one(content):
        size = _image_size(content)
        is_small = tf.reduce_prod(size) <= _MAX_PIXELS

        def pixels():
            image = tf.io.decode_image(content, expand_animations=False)
            image.set_shape((None, None, None))
            found = tf.shape(image)[-1]
            return found, tf.cond(
                tf.equal(found, channels), lambda: scaled(image), lambda: blank
            )

        def scaled(image):
            image.set_shape((None, None, channels))
            image = _cropped(image, height, width) if crop else image
            is_size = tf.reduce_all(tf.shape(image)[:2] == [height, width])
            image = tf.cond(
                is_size,
                lambda: tf.cast(image, "float32"),
                lambda: tf.image.resize(image, (height, width), antialias=True),
            )
            return tf.ensure_shape(image, reader.shape) / 127.5 - 1

        crop = reader.crop_to_aspect_ratio
        found, image = tf.cond(is_small, pixels, lambda: (channels, blank))
        return image, size, is_small, found

    missing = blank, tf.zeros((2,), "int64"), True, channels
    (images, sizes, is_small, found), is_decoded = _decode_each(
        contents, decode_one, missing
    )
    images.set_shape((None, *reader.shape))
    return checked(
        images,
        _require_each(
            is_decoded,
            f"`{name}` must hold whole images. Received: what cannot be decoded",
            "Send the bytes of the files undamaged.",
        ),
        _require_each(
            is_small,
            f"`{name}` must hold images of at most {_MAX_PIXELS:,} pixels. Received: "
            "larger ones",
            "Make them smaller.",
            received=sizes,
        ),
        _require_each(
            tf.equal(found, channels),
            f"`{name}` must hold images with {channels} channels. Received: others",
            "Convert the images.",
            received=found,
        ),
    )


_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_BMP, _GIF = b"BM", b"GIF8"
_IMAGE_MAGIC = (_PNG, _JPEG, _BMP, _GIF)


def _headers(contents):
    """Returns the first bytes of files as numbers, zeros after the end."""
    padding = tf.constant(bytes(_HEADER_BYTES))
    header = tf.strings.join([tf.strings.substr(contents, 0, _HEADER_BYTES), padding])
    return tf.io.decode_raw(tf.strings.substr(header, 0, _HEADER_BYTES), tf.uint8)


def _begins(header, magic):
    magic = np.frombuffer(magic, "uint8")
    return tf.reduce_all(header[..., : len(magic)] == magic, axis=-1)


def _image_size(content):
    """Returns the height and width of an image from its header, undecoded."""
    header = _headers(content)
    numbers = tf.cast(header, "int64")

    def at(place, num_bytes, is_big_endian=False):
        value = numbers[place : place + num_bytes]
        value = value[::-1] if is_big_endian else value
        return tf.reduce_sum(value * [1 << 8 * i for i in range(num_bytes)])

    return tf.case(
        [
            (
                _begins(header, _JPEG),
                lambda: tf.io.extract_jpeg_shape(content, tf.int64)[:2],
            ),
            (
                _begins(header, _PNG),
                lambda: tf.stack([at(20, 4, True), at(16, 4, True)]),
            ),
            # Its height is negative if rows go from top to bottom.
            (
                _begins(header, _BMP),
                lambda: tf.stack([tf.abs(at(22, 4)), at(18, 4)]),
            ),
        ],
        default=lambda: tf.stack([at(8, 2), at(6, 2)]),  # GIF
    )


def _cropped(image, height, width):
    """Cuts an image to an aspect ratio, at both ends."""
    size = tf.shape(image)
    wide = tf.cast(size, "float64")
    # As in Python, halves go to the even number.
    rows = tf.cast(tf.round(wide[1] * height / width), "int32")
    columns = tf.cast(tf.round(wide[0] * width / height), "int32")
    rows = tf.maximum(tf.minimum(size[0], rows), 1)
    columns = tf.maximum(tf.minimum(size[1], columns), 1)
    top, left = (size[0] - rows) // 2, (size[1] - columns) // 2
    return image[top : top + rows, left : left + columns]


def _sounds(name, contents, reader, use_mask):
    header = _headers(contents)
    is_wav = _begins(header, b"RIFF") & _begins(header[..., 8:], b"WAVE")
    contents = checked(
        contents,
        _require_each(
            is_wav,
            f"`{name}` must hold WAV files. Received: others",
            "Convert the files, and send their bytes undamaged.",
        ),
    )

    (num_samples,) = reader.shape

    def decode_one(content):
        audio, sample_rate = tf.audio.decode_wav(content)
        length, num_channels = tf.unstack(tf.shape(audio))
        audio = audio[:num_samples]
        # An empty one is refused below, and has no first channel to take.
        samples = tf.reshape(audio, (-1, tf.maximum(num_channels, 1)))[:, 0]
        return samples, length, num_channels, sample_rate

    missing = tf.zeros((0,)), 1, 1, reader.sample_rate
    (samples, lengths, num_channels, sample_rates), is_decoded = _decode_each(
        contents, decode_one, missing
    )
    shortest = 1 if reader.use_mask else num_samples
    samples = checked(
        samples,
        _require_each(
            is_decoded,
            f"`{name}` must hold whole 16-bit WAV files. Received: what cannot be "
            "decoded",
            "Send the bytes of the files undamaged.",
        ),
        _require_each(
            tf.equal(sample_rates, reader.sample_rate),
            f"`{name}` must hold sounds of {reader.sample_rate} hertz. Received: others",
            "Resample the sounds.",
            received=sample_rates,
        ),
        _require_each(
            tf.equal(num_channels, 1),
            f"`{name}` must hold mono sounds. Received: several channels",
            "Mix them down to one.",
            received=num_channels,
        ),
        _require_each(
            lengths >= shortest,
            f"`{name}` must hold sounds of at least {shortest} samples. Received: "
            "shorter ones",
            "Send whole sounds.",
            received=lengths,
        ),
    )
    if num_samples is not None:
        missing = num_samples - tf.shape(samples)[1]
        samples = tf.pad(samples, [[0, 0], [0, missing]])
        samples.set_shape((None, num_samples))
    if not use_mask:
        return {name: samples}
    positions = tf.range(tf.shape(samples)[1])
    return {name: samples, f"{name}_mask": positions < lengths[:, None]}
