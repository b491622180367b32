"""Patches: groups of adjacent positions that become one element."""

from keras import ops

from keras_perceiver.layers.position import grid_size


def group(x, sizes):
    """Groups positions into patches (space-to-depth).

    Args:
        x: Tensor of shape `(batch, *lengths, channels)`.
        sizes: Tuple, positions per patch along each axis, divisors of the lengths.

    Returns:
        Tensor of shape `(batch, *(lengths / sizes), channels * prod(sizes))`.
    """
    if all(size == 1 for size in sizes):
        return x
    batch_size, *lengths, channels = ops.shape(x)
    grid = [length // size for length, size in zip(lengths, sizes, strict=True)]
    split = [n for pair in zip(grid, sizes, strict=True) for n in pair]
    # The batch size instead of -1, so that lengths that are not multiples raise an
    # error.
    x = ops.reshape(x, (batch_size, *split, channels))  # (B, g1, s1, g2, s2, ..., C)
    last = 2 * len(sizes) + 1
    order = (0, *range(1, last, 2), *range(2, last, 2), last)
    x = ops.transpose(x, order)  # (B, *grid, *sizes, C)
    return ops.reshape(x, (batch_size, *grid, grid_size(sizes) * channels))


def pad_to_multiple(x, size, extra=0):
    """Pads the end of the second axis with zeros to a multiple of `size`, plus `extra`."""
    missing = -ops.shape(x)[1] % size + extra
    if isinstance(missing, int) and not missing:
        return x
    return ops.pad(x, [[0, 0], [0, missing]] + [[0, 0]] * (len(x.shape) - 2))


def per_axis(name, sizes, num_axes):
    """Returns one number per axis, from one for all axes or one per axis."""
    sizes = tuple(sizes) if isinstance(sizes, (tuple, list)) else (sizes,) * num_axes
    if len(sizes) != num_axes:
        raise ValueError(
            f"`{name}` must be one number, or one per axis. Received: "
            f"{name}={sizes} for {num_axes} axes. Pass {num_axes} numbers."
        )
    return sizes
