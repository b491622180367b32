"""Overrides of settings as a command line has them: `path=value`."""

import ast
import json

_WORDS = {"none": None, "null": None, "true": True, "false": False}


def parse_overrides(texts):
    """Reads overrides as they are written on a command line.

    Args:
        texts: Iterable of strings `path=value`. A value is a Python or JSON literal,
            `none`, `true` or `false`, or else a string.

    Returns:
        Dict from dotted paths to values.

    Raises:
        ValueError: if a text has no `=`, if a path comes twice, or if a value has an
            opening bracket or quotation mark and is not a literal.

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
                "Leave one of them out."
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
            "The value of an override must be a literal, a word or a number. Received: "
            f"{path}={text}. Close its brackets and quotation marks."
        )
    return text
