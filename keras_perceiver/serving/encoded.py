"""The signature `encoded`, which decodes and converts files in the graph."""

import tensorflow as tf

from keras_perceiver.serving.requests import checked, examples, require

# The signature whose inputs are the bytes of files.
ENCODED = "encoded"
# Number of files of a batch that are decoded in parallel.
_DECODED_AT_ONCE = 8


def decode(name, contents, preprocessor, use_mask):
    """Decodes and converts a batch of files in the graph.

    Args:
        name: String, the name of the input.
        contents: String tensor, of any shape.
        preprocessor: `Preprocessor` with a graph form.
        use_mask: Boolean, whether to return a mask.

    Returns:
        Dict with a tensor `name`, the batch of raw inputs as the preprocessor reads
        them on the host, padded at the end, and its mask if `use_mask` is `True`.
    """
    shape = tf.shape(contents)

    def wrong_shape():
        return tf.strings.format(
            f"`{name}` must have shape (batch): the bytes of one file per example. "
            "Received: shape {}. Send a list of files.",
            shape,
        )

    has_shape = tf.equal(tf.size(shape), 1) & (tf.size(contents) > 0)
    contents = checked(contents, require(has_shape, wrong_shape))
    contents.set_shape((None,))
    batch, lengths, errors = _decode_each(contents, preprocessor)
    batch = checked(batch, _require_valid(name, errors))
    size, *rest = preprocessor.shape
    if size is not None:
        missing = size - tf.shape(batch)[1]
        batch = tf.pad(batch, [[0, 0], [0, missing]] + [[0, 0]] * len(rest))
    batch.set_shape((None, size, *rest))
    if not use_mask:
        return {name: batch}
    mask_shape = tf.shape(batch)[: 1 + preprocessor.num_mask_axes]
    mask = tf.range(mask_shape[1]) < lengths[:, None]  # (B, length)
    for _ in range(preprocessor.num_mask_axes - 1):
        mask = mask[..., None]
    mask = tf.broadcast_to(mask, mask_shape)
    mask.set_shape((None, size, *rest[: preprocessor.num_mask_axes - 1]))
    return {name: batch, f"{name}_mask": mask}


def _require_valid(name, errors):
    """Requires valid files. The error names the invalid ones."""
    is_valid = tf.equal(errors, "")

    def message():
        first = tf.boolean_mask(errors, ~is_valid)[0]
        return tf.strings.join(
            [
                f"`{name}` must contain valid files. Received: errors in examples ",
                examples(is_valid),
                " of the batch (counted from 0). The first: ",
                first,
            ]
        )

    return require(tf.reduce_all(is_valid), message)


def _decode_each(contents, preprocessor):
    """Decodes and converts the files of a batch in parallel.

    An operation that cannot decode a file fails without the index of its example. In a
    dataset, the example is skipped instead.

    Args:
        contents: String tensor of shape `(batch,)`.
        preprocessor: `Preprocessor`.

    Returns:
        Tensors of the raw inputs, padded at the end if their lengths differ, of their
        lengths, and of their errors, `""` for valid files.
    """
    batch_size = tf.size(contents, out_type=tf.int64)

    def decode_one(number):
        array, error = preprocessor.read_content_in_graph(contents[number])
        return number, array, tf.shape(array)[0], error

    decoded = (
        tf.data.Dataset.range(batch_size)
        .map(decode_one, num_parallel_calls=_DECODED_AT_ONCE, deterministic=True)
        .ignore_errors()
    )
    invalid = (
        f"A file must be {preprocessor.graph_file_kind}. Received: content that cannot be "
        "decoded. Send the unmodified bytes of the file."
    )
    blank = tf.zeros([n or 0 for n in preprocessor.shape], preprocessor.dtype)
    # An additional element, so that there is a batch even if nothing was decoded.
    extra = tf.data.Dataset.from_tensors((batch_size, blank, 0, invalid))
    batch = decoded.concatenate(extra).padded_batch(batch_size + 1)
    options = tf.data.Options()
    options.autotune.enabled = False  # it is read once
    numbers, *tensors = batch.with_options(options).get_single_element()
    # The position of each example in the batch, and 0 for those that were skipped.
    places = tf.scatter_nd(
        numbers[:, None], tf.range(1, tf.size(numbers) + 1), [batch_size + 1]
    )[:-1]
    places = tf.where(places > 0, places - 1, tf.size(numbers) - 1)
    return [tf.gather(x, places) for x in tensors]
