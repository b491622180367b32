"""Argument checks whose errors say the rule, what was received, and the fix."""

import numbers


def check_positive(**arguments):
    """Raises `ValueError` unless every argument is an integer of at least 1."""
    for name, value in arguments.items():
        is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not is_integer or value < 1:
            raise ValueError(
                f"`{name}` must be a positive integer. Received: {name}={value!r}. "
                f"Set `{name}` to 1 or more."
            )


def check_divisible(divisor_name, divisor, **widths):
    """Raises `ValueError` unless every width is a multiple of the divisor."""
    for name, width in widths.items():
        if width % divisor:
            raise ValueError(
                f"`{name}` must be divisible by `{divisor_name}`. Received: "
                f"{name}={width}, {divisor_name}={divisor}. "
                f"Set `{name}` to a multiple of {divisor}."
            )


def check_fraction(**arguments):
    """Raises `ValueError` unless every argument is in [0, 1)."""
    for name, value in arguments.items():
        if not isinstance(value, numbers.Real) or not 0 <= value < 1:
            raise ValueError(
                f"`{name}` must be a number in [0, 1). Received: {name}={value!r}. "
                f"Set `{name}` to 0.0 to switch it off."
            )


def check_rank(name, shape, rank, layout):
    """Raises `ValueError` unless `shape` has `rank` dimensions, the last one known."""
    if len(shape) != rank or shape[-1] is None:
        raise ValueError(
            f"`{name}` must have shape `{layout}` with a known last dimension. "
            f"Received: {name}.shape={tuple(shape)}. "
            f"Reshape `{name}` to {rank} dimensions."
        )
