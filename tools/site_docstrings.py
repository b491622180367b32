"""How the site reads docstrings: examples and sections that Griffe does not know."""

import contextlib
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


def _modules(module):
    """Yields a module and all modules in it."""
    yield module
    for member in module.modules.values():
        if not member.is_alias:
            yield from _modules(member)


class Docstrings(griffe.Extension):
    """Mends the docstring of each object before it is parsed.

    A function that a package imports from its module of the same name hides the module in
    Python. In Griffe the module hides the function. Here imports lead to the function.
    """

    def on_package(self, *, pkg, **kwargs):
        for module in _modules(pkg):
            for alias in module.members.values():
                if alias.is_alias:
                    path = f"{alias.target_path}.{alias.target_path.rpartition('.')[2]}"
                    # Names that are not found are created on access.
                    with contextlib.suppress(KeyError):
                        function = pkg.modules_collection.get_member(path)
                        if function.is_function:
                            alias.target = function

    def on_object(self, *, obj, **kwargs):
        if obj.docstring:
            obj.docstring.value = mended(obj.docstring.value)
