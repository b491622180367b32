"""Import of Matplotlib, which is optional."""

import importlib


def matplotlib(module):
    """Returns a module of Matplotlib.

    Args:
        module: String, such as `"pyplot"`. For files, `"figure"` needs no display and
            does not change the backend of a notebook.

    Raises:
        ImportError: if Matplotlib is not installed.
    """
    try:
        return importlib.import_module(f"matplotlib.{module}")
    except ImportError as error:
        raise ImportError(
            "Figures need Matplotlib, which is not installed. "
            "Install it with `pip install matplotlib`."
        ) from error
