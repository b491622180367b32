"""Overrides of settings on a command line: `path=value`."""

import ast
import json

_WORDS = {"none": None, "null": None, "true": True, "false": False}


def parse_overrides(texts):
    """Parses overrides from a command line.

    Args:
        texts: Iterable of strings `path=value`. A value is a Python or JSON literal,
            `none`, `true` or `false`, or otherwise a string.

    Returns:
        Dict from dotted paths to values.

    Raises:
        ValueError: if there is no `=`, if a path is repeated, or if a value starts with
            a bracket or quotation mark but is not a literal.

    Example:

    >>> parse_overrides(["epochs=3", "model.use_remat=true", "activation=relu"])
    {'epochs': 3, 'model.use_remat': True, 'activation': 'relu'}
    """
    overrides = {}
    for text in texts:
        path, separator, value = text.partition("=")
        path = path.strip()
        if not separator or not all(path.split(".")):
            raise ValueError(
                "An override must have the form `path=value`. Received: "
                f"{text!r}. Write, for example, `model.num_latents=64`."
            )
        if path in overrides:
            raise ValueError(
                f"A path must be overridden once. Received: {path!r} twice. "
                "Remove one of them."
            )
        overrides[path] = _parsed(path, value.strip())
    return overrides


def _parsed(path, text):
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError):
            pass
    if text[:1] in tuple("([{'\""):
        raise ValueError(
            "The value of an override must be a literal, a number or a word. Received: "
            f"{path}={text}. Close its brackets and quotation marks."
        )
    return text
