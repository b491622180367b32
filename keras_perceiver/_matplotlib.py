"""Matplotlib, which is optional."""

import importlib


def matplotlib(module):
    """Returns a module of Matplotlib.

    Args:
        module: String, such as `"pyplot"`; or `"figure"`, for files, which needs no
            display and leaves the backend of a notebook alone.

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
