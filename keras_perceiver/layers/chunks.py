"""Loops over chunks of arrays with very many elements."""

import keras
from keras import ops


def over_chunks(step, state, tensors, size, like=()):
    """Calls a step on all chunks of tensors along their second axis.

    Args:
        step: Callable of `(state, chunk)`, where `chunk` is the dict of the tensors'
            slices of shape `(B, m, ...)`. Returns the next state and a tuple of tensors.
        state: Tuple of tensors.
        tensors: Dict of tensors of shape `(B, M, ...)`.
        size: Integer, elements per chunk. The last chunk may have fewer.
        like: Tensors with the dtypes of those that a step returns besides the state.

    Returns:
        The last state, and a list of the tensors that the steps returned, concatenated
        along the second axis.
    """
    length = ops.shape(next(iter(tensors.values())))[1]

    def step_at(state, start, size):
        return step(state, {k: _slice(x, start, size) for k, x in tensors.items()})

    backend = keras.backend.backend()
    # JAX and torch know all lengths at run time. While an export is traced, lengths can
    # be symbolic, and such tensors cannot be sliced into chunks.
    if length <= size if isinstance(length, int) else backend != "tensorflow":
        return step(state, tensors)
    if backend == "tensorflow":
        return _over_chunks_tensorflow(step_at, state, length, size, like)
    over = {"jax": _over_chunks_jax, "torch": _over_chunks_torch}[backend]
    return over(step_at, state, length, size)


def _slice(tensor, start, size):
    """Returns `tensor[:, start : start + size]`, for a `start` inside a loop."""
    shape = ops.shape(tensor)
    starts = (0, start) + (0,) * (len(shape) - 2)
    return ops.slice(tensor, starts, (shape[0], size, *shape[2:]))


def _over_chunks_jax(step, state, length, size):
    """Backend-specific path: the body is compiled once, whatever the number of chunks."""
    import jax
    import jax.numpy as jnp

    num_full = length // size
    outputs = []
    if num_full:

        def body(state, start):
            # If this loop is inside another one that is differentiated, JAX would
            # otherwise hoist the computation of all chunks out of the outer loop.
            state, start = jax.lax.optimization_barrier((state, start))
            return step(state, start, size)

        state, stacked = jax.lax.scan(body, state, jnp.arange(num_full) * size)
        # (n, B, m, ...) to (B, n * m, ...)
        outputs.append(
            [
                jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])
                for x in stacked
            ]
        )
    if rest := length - num_full * size:
        state, last = step(state, num_full * size, rest)
        outputs.append(last)
    return state, [jnp.concatenate(x, axis=1) for x in zip(*outputs, strict=True)]


def _over_chunks_tensorflow(step, state, length, size, like):
    """Backend-specific path: a loop of one iteration at a time bounds the memory."""
    import tensorflow as tf

    # At least one input is left for the last chunk, since the remainder of an unknown
    # length cannot be tested, and the maximum of an empty chunk is undefined.
    if not isinstance(length, int):
        size = tf.minimum(size, length)  # XLA checks slices of loops that never run
    num_full = (length - 1) // size
    # Lists, since an empty TensorArray cannot be stacked with a dynamic batch size.
    lists = [
        tf.raw_ops.TensorListReserve(
            element_shape=-1, num_elements=num_full, element_dtype=x.dtype
        )
        for x in like
    ]

    def body(i, state, lists):
        state, outputs = step(state, i * size, size)
        lists = [
            tf.raw_ops.TensorListSetItem(input_handle=chunks, index=i, item=x)
            for chunks, x in zip(lists, outputs, strict=True)
        ]
        return i + 1, state, lists

    _, new_state, lists = tf.while_loop(
        lambda i, *_: i < num_full,
        body,
        (0, tuple(state), lists),
        shape_invariants=(
            tf.TensorShape([]),
            tuple(tf.TensorShape([None] * len(x.shape)) for x in state),
            [tf.TensorShape([]) for _ in lists],
        ),
        parallel_iterations=1,
    )
    for x, old in zip(new_state, state, strict=True):
        x.set_shape(old.shape)
    new_state, last = step(new_state, num_full * size, length - num_full * size)
    outputs = []
    for chunks, rest in zip(lists, last, strict=True):
        batch, _, *widths = ops.shape(rest)
        x = tf.raw_ops.TensorListStack(
            input_handle=chunks,
            element_shape=[batch, size, *widths],
            element_dtype=rest.dtype,
        )  # (n, B, m, ...)
        x = tf.transpose(x, [1, 0, *range(2, len(x.shape))])
        x = tf.reshape(x, [batch, num_full * size, *widths])
        outputs.append(tf.concat([x, rest], 1))
    return new_state, outputs


def _over_chunks_torch(step, state, length, size):
    """Backend-specific path: results are written to where they stay.

    Small tensors that are kept between the large ones of a step fragment the memory.
    """
    outputs = []
    for start in range(0, length, size):
        end = min(start + size, length)
        state, found = step(state, start, end - start)
        if not outputs:
            outputs = [x.new_empty((x.shape[0], length, *x.shape[2:])) for x in found]
        for whole, x in zip(outputs, found, strict=True):
            whole[:, start:end] = x
    return state, outputs
