"""The Exif orientation of an image file, on the host and in a graph.

Reference:
    [Exif 2.32](https://www.cipa.jp/std/documents/e/DC-X008-Translation-2019-E.pdf),
    section 4.6.4: tag 274 in the first directory of a TIFF structure.
"""

_TAG = 274
_UPRIGHT = 1
# Orientations that need columns reversed, rows reversed, and then rows and columns
# transposed.
_IS_FLIPPED_HORIZONTALLY = (2, 3, 7, 8)
_IS_FLIPPED_VERTICALLY = (3, 4, 6, 7)
_IS_TRANSPOSED = (5, 6, 7, 8)
# Number types SHORT and LONG, and their sizes in bytes.
_TYPES = {3: 2, 4: 4}
_ENTRY_BYTES = 12


def orientation(exif):
    """Returns the orientation in Exif data, 1 to 8. It is 1 if there is none.

    Args:
        exif: Bytes of the TIFF structure, or `None`.
    """
    order = {b"II": "little", b"MM": "big"}.get((exif or b"")[:2])
    if order is None:
        return _UPRIGHT

    def number(place, num_bytes):
        return int.from_bytes(exif[place : place + num_bytes], order)

    directory = number(4, 4)
    for index in range(number(directory, 2)):
        entry = directory + 2 + _ENTRY_BYTES * index
        if number(entry, 2) == _TAG:
            value = number(entry + 8, _TYPES.get(number(entry + 2, 2), 0))
            return value if _UPRIGHT <= value <= 8 else _UPRIGHT
    return _UPRIGHT


def upright(pixels, orientation):
    """Returns upright pixels, given pixels of shape `(rows, columns, channels)`."""
    rows = -1 if orientation in _IS_FLIPPED_VERTICALLY else 1
    columns = -1 if orientation in _IS_FLIPPED_HORIZONTALLY else 1
    pixels = pixels[::rows, ::columns]
    return pixels.swapaxes(0, 1) if orientation in _IS_TRANSPOSED else pixels


def upright_in_graph(pixels, orientation):
    """Returns upright pixels as a tensor, given an int32 scalar."""
    import tensorflow as tf

    def changed(pixels, numbers, change):
        is_one_of = tf.reduce_any(tf.equal(orientation, numbers))
        return tf.cond(is_one_of, lambda: change(pixels), lambda: pixels)

    pixels = changed(pixels, _IS_FLIPPED_VERTICALLY, lambda x: tf.reverse(x, [0]))
    pixels = changed(pixels, _IS_FLIPPED_HORIZONTALLY, lambda x: tf.reverse(x, [1]))
    return changed(pixels, _IS_TRANSPOSED, lambda x: tf.transpose(x, [1, 0, 2]))


def orientation_in_graph(content, is_jpeg, is_png):
    """Returns the orientation of a JPEG or PNG file as an int32 scalar, 1 otherwise.

    Args:
        content: String scalar, the bytes of the file.
        is_jpeg: Boolean scalar.
        is_png: Boolean scalar.
    """
    import tensorflow as tf

    padded = tf.strings.join([content, tf.constant(bytes(64))])
    length = tf.strings.length(content)

    def number(place, num_bytes, is_big_endian=True):
        place = tf.clip_by_value(place, 0, length)
        text = tf.io.decode_raw(tf.strings.substr(padded, place, num_bytes), tf.uint8)
        powers = tf.constant([1 << 8 * i for i in range(num_bytes)], "int64")
        powers = tf.where(is_big_endian, powers[::-1], powers)
        value = tf.reduce_sum(tf.cast(text, "int64") * powers)
        # Larger numbers are positions past the end of any file.
        return tf.cast(tf.minimum(value, 2**31 - 1 - 64), "int32")

    def starts(place, text):
        place = tf.minimum(place, length)
        return tf.equal(tf.strings.substr(padded, place, len(text)), text)

    def found_in(first, is_it, is_more, following):
        """Returns the position of the first match, or -1."""

        def is_other(place):
            return (place + 8 <= length) & is_more(place) & ~is_it(place)

        def step(place):
            after = following(place)
            return (tf.where(after > place, tf.minimum(after, length), length),)

        place = tf.while_loop(is_other, step, (tf.minimum(first, length),))[0]
        return tf.where((place + 8 <= length) & is_it(place), place, -1)

    def jpeg():
        place = found_in(
            2,
            lambda place: starts(place, b"\xff\xe1") & starts(place + 4, b"Exif\0\0"),
            # Up to the start of the image data.
            lambda place: starts(place, b"\xff") & ~starts(place, b"\xff\xda"),
            lambda place: place + 2 + number(place + 2, 2),
        )
        return tf.where(place < 0, -1, place + 10)

    def png():
        place = found_in(
            8,
            lambda place: starts(place + 4, b"eXIf"),
            # Exif data precede the image data, by the third edition of PNG.
            lambda place: ~starts(place + 4, b"IDAT"),
            lambda place: place + 12 + tf.minimum(number(place, 4), length),
        )
        return tf.where(place < 0, -1, place + 8)

    start = tf.case([(is_jpeg, jpeg), (is_png, png)], default=lambda: tf.constant(-1))

    def value():
        is_big_endian = starts(start, b"MM")
        directory = start + tf.minimum(number(start + 4, 4, is_big_endian), length)
        num_entries = number(directory, 2, is_big_endian)
        entry = found_in(
            directory + 2,
            lambda entry: tf.equal(number(entry, 2, is_big_endian), _TAG),
            lambda entry: entry < directory + 2 + _ENTRY_BYTES * num_entries,
            lambda entry: entry + _ENTRY_BYTES,
        )
        kind = number(entry + 2, 2, is_big_endian)
        values = {
            kind: number(entry + 8, num_bytes, is_big_endian)
            for kind, num_bytes in _TYPES.items()
        }
        found = tf.where(tf.equal(kind, 3), values[3], values[4])
        is_number = (entry >= 0) & (tf.equal(kind, 3) | tf.equal(kind, 4))
        return tf.where(is_number & (found >= 1) & (found <= 8), found, _UPRIGHT)

    is_exif = (start >= 0) & (starts(start, b"II") | starts(start, b"MM"))
    return tf.cond(is_exif, value, lambda: tf.constant(_UPRIGHT))
