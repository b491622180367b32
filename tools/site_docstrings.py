"""How the site reads docstrings: examples and sections that Griffe does not know."""

import re

import griffe

_EXAMPLE = re.compile(r"^Example:\n\n((?:.+\n)+(?:\n>>> (?:.+\n)+)*)", re.MULTILINE)
_SECTION = re.compile(
    r"^(Call arguments|Reference|Returns|Yields):\n((?:    .+\n)+)", re.MULTILINE
)
_ITEM = re.compile(r"^    (\S+): ", re.MULTILINE)


def mended(text):
    """Returns a docstring in the dialect of Griffe.

    Examples become blocks of code, call arguments lists, and the others paragraphs.
    """
    text = _EXAMPLE.sub(r"**Example:**\n\n```pycon\n\1```\n", text + "\n")
    return _SECTION.sub(_section, text)


def _section(match):
    title, body = match.groups()
    if title == "Call arguments":
        return f"**{title}:**\n\n" + _ITEM.sub(r"- **`\1`**: ", body)
    return f"**{title}:** {' '.join(body.split())}\n"


class Docstrings(griffe.Extension):
    """Mends the docstring of each object before it is parsed."""

    def on_object(self, *, obj, **kwargs):
        if obj.docstring:
            obj.docstring.value = mended(obj.docstring.value)
