"""Checks of requests as graph operations, since a server does not run Python.

Errors state the rule, what was received, and the fix, and name the input and the examples
of the batch that violate it. A valid request costs a few small operations.
"""

import tensorflow as tf


def require(is_right, message):
    """Returns an operation that fails unless a condition holds.

    Args:
        is_right: Boolean scalar tensor.
        message: Callable that returns the error message, a string tensor.

    Returns:
        Operation for `tf.control_dependencies`.
    """

    def fail():
        return tf.raw_ops.Assert(condition=tf.constant(False), data=[message()])

    return tf.cond(is_right, tf.no_op, fail)


def examples(is_right):
    """Returns the indices of invalid examples of a batch as text.

    Args:
        is_right: Boolean tensor of shape `(batch,)`.
    """
    return tf.strings.format("{}", tf.where(~is_right)[:, 0], summarize=10)


def checked(tensor, *requirements):
    """Returns the same tensor with a dependency on the requirements."""
    with tf.control_dependencies(requirements):
        return tf.identity(tensor)


def checked_inputs(model, inputs):
    """Checks the shapes, masks, indices and values of the inputs of a model.

    Args:
        model: `Perceiver` or a task.
        inputs: Dict of tensors of unknown shapes by input name.

    Returns:
        Dict of tensors with the shapes of the modalities.
    """
    modalities, arrays, batch_sizes = model.modalities, {}, {}
    for name, modality in modalities.items():
        x = _of_shape(name, inputs[name], modality)
        arrays[name], batch_sizes[name] = x, tf.shape(x)[0]
        if modality.use_mask:
            mask_name = f"{name}_mask"
            arrays[mask_name] = _mask_of(
                mask_name, inputs[mask_name], name, x, modality
            )
    for name, limit in model.index_inputs.items():
        arrays[name] = x = _indices(name, inputs[name], limit)
        batch_sizes[name] = tf.shape(x)[0]
    if len(batch_sizes) > 1:
        arrays = _same_batch_size(arrays, batch_sizes)
    for name, modality in modalities.items():
        arrays[name] = _readable(name, arrays, modality)
    return arrays


def _of_shape(name, x, modality):
    shape = tf.shape(x)
    expected = (None, *modality.input_shape)
    sizes = _first_sizes(shape, len(expected))
    rules = [tf.equal(tf.size(shape), len(expected)), sizes[0] >= 1]
    fixed = [axis for axis, size in enumerate(expected) if size is not None]
    if fixed:
        wanted = [expected[axis] for axis in fixed]
        rules.append(tf.reduce_all(tf.gather(sizes, fixed) == wanted))
    texts = [str(size) for size in expected]
    texts[0] = "batch"
    for axis, (multiple, maximum) in modality.dynamic_lengths.items():
        size = sizes[axis + 1]
        rules.append(size >= 1)
        texts[axis + 1] = "any"
        if multiple > 1:
            rules.append(size % multiple == 0)
            texts[axis + 1] = f"a multiple of {multiple}"
        if maximum is not None:
            rules.append(size <= maximum)
            texts[axis + 1] = f"at most {maximum}"

    def message():
        return tf.strings.format(
            f"`{name}` must have shape ({', '.join(texts)}), with one example or more. "
            "Received: shape {}. Change the array, or export a model for this shape.",
            shape,
            summarize=-1,
        )

    x = checked(x, require(tf.reduce_all(rules), message))
    x.set_shape(expected)
    return x


def _indices(name, x, limit):
    shape = tf.shape(x)

    def shape_message():
        return tf.strings.format(
            f"`{name}` must have shape (batch, num_outputs). Received: shape {{}}. "
            "Send the numbers of the wanted outputs, as many for each example.",
            shape,
            summarize=-1,
        )

    def range_message():
        return tf.strings.format(
            f"`{name}` must be in [0, {limit}). Received: indices from {{}} to {{}}. "
            "Correct them.",
            [tf.reduce_min(x), tf.reduce_max(x)],
        )

    is_matrix = tf.equal(tf.size(shape), 2) & tf.reduce_all(shape > 0)
    x = checked(x, require(is_matrix, shape_message))
    x.set_shape((None, None))
    is_right = tf.reduce_all((x >= 0) & (x < limit))
    return checked(x, require(is_right, range_message))


def _first_sizes(shape, rank):
    """Returns the sizes of `rank` axes, -1 for missing ones."""
    sizes = tf.concat([shape, tf.fill([rank], -1)], axis=0)[:rank]
    sizes.set_shape((rank,))
    return sizes


def _mask_of(mask_name, mask, name, x, modality):
    rank = 1 + len(modality.mask_shape)
    expected, received = tf.shape(x)[:rank], tf.shape(mask)
    is_right = tf.reduce_all(
        [
            tf.equal(tf.size(received), rank),
            tf.reduce_all(_first_sizes(received, rank) == expected),
        ]
    )

    def message():
        return tf.strings.format(
            f"`{mask_name}` must have the shape of `{name}` without channels, {{}}. "
            "Received: shape {}. Send one boolean per raw position, false for padding.",
            [expected, received],
            summarize=-1,
        )

    mask = checked(mask, require(is_right, message))
    mask.set_shape((None, *modality.mask_shape))
    return mask


def _same_batch_size(arrays, batch_sizes):
    names, sizes = list(batch_sizes), tf.stack(list(batch_sizes.values()))

    def message():
        return tf.strings.format(
            f"The inputs {names} must have the same number of examples. Received: {{}}. "
            "Send all inputs of each example.",
            sizes,
            summarize=-1,
        )

    check = require(tf.reduce_all(sizes == sizes[0]), message)
    return {name: checked(x, check) for name, x in arrays.items()}


def _readable(name, arrays, modality):
    """Checks values, except for padding."""
    x = arrays[name]
    if modality.input_range is None:
        is_readable = tf.math.is_finite(x) if x.dtype.is_floating else tf.ones_like(x)
        is_readable = tf.cast(is_readable, "bool")
        rule, received = "be finite", "NaN or infinity"
    else:
        low, high = modality.input_range
        is_readable = (x >= low) & (x <= high)
        rule, received = f"be in [{low}, {high}]", "other values"
    if modality.use_mask:
        mask = arrays[f"{name}_mask"]
        for _ in range(x.shape.rank - mask.shape.rank):
            mask = mask[..., None]
        is_readable |= ~mask
    of_examples = tf.reduce_all(is_readable, axis=range(1, x.shape.rank))

    def message():
        return tf.strings.join(
            [
                f"`{name}` must {rule}. Received: {received} in examples ",
                examples(of_examples),
                " of the batch (counted from 0). Correct these examples.",
            ]
        )

    return checked(x, require(tf.reduce_all(of_examples), message))
