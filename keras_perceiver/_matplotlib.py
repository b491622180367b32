"""Import of Matplotlib, which is optional."""

import importlib


def matplotlib(module: str | None = None):
    """Returns Matplotlib or a module of it.

    Args:
        module: String, such as `"pyplot"`. For files, `"figure"` needs no display and
            does not change the backend of a notebook. Defaults to the package.

    Raises:
        ImportError: if Matplotlib is not installed.
    """
    try:
        name = "matplotlib" if module is None else f"matplotlib.{module}"
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            "Figures need Matplotlib, which is not installed. "
            "Install it with `pip install matplotlib`."
        ) from error
