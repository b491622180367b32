"""Reading of numbers that a user types or pastes."""

import numpy as np


def read_numbers(text, name, shape, dtype):
    """Returns the numbers in a text as an array.

    Numbers are separated by spaces, tabs, commas or semicolons, with one row per line.

    Args:
        text: String.
        name: String, the input's name in errors.
        shape: Tuple, shape of the array, with at most one `None` for any length.
        dtype: String, dtype of the array.

    Raises:
        ValueError: if it contains something else, or another number of numbers.
    """
    words = text.translate(str.maketrans(",;", "  ")).split()
    try:
        numbers = np.array([float(word) for word in words])
    except ValueError as error:
        raise ValueError(
            f"Inputs `{name}` must be numbers, separated by spaces or commas. Received: "
            f"{str(error).rpartition(': ')[2]}. Correct them."
        ) from error
    is_integer = np.issubdtype(dtype, np.integer)
    # Larger integers, NaN and infinity cannot be converted.
    if not (np.abs(numbers) < (2**31 if is_integer else np.inf)).all():
        raise ValueError(
            f"Inputs `{name}` must be finite numbers. Received: values from "
            f"{numbers.min()} to {numbers.max()}. Correct them."
        )
    if is_integer and (numbers % 1).any():
        raise ValueError(
            f"Inputs `{name}` must be integers. Received: {numbers[numbers % 1 != 0][0]}. "
            "Correct them."
        )
    row = int(np.prod([n for n in shape if n is not None]))
    is_whole = len(numbers) % row == 0 if None in shape else len(numbers) == row
    if not len(numbers) or not is_whole or shape.count(None) > 1:
        sizes = ", ".join(str(n or "any") for n in shape)
        raise ValueError(
            f"Inputs `{name}` must be numbers of shape ({sizes}), one row per line. "
            f"Received: {len(numbers)} numbers. Add or remove some."
        )
    return numbers.reshape([-1 if n is None else n for n in shape]).astype(dtype)
