"""Names of users, such as those of classes, in texts that have a markup."""

import json
import re

# What begins something else in Markdown than text; `_` in a word does not.
_MARKDOWN = re.compile(r"[\\|<$`*\[]")
# With these a spreadsheet begins a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def one_line(name):
    """Returns a name with line ends and other control characters spelled out."""
    is_shown = str.isprintable
    return "".join(
        c if is_shown(c) else c.encode("unicode_escape").decode() for c in name
    )


def in_markdown(name):
    """Returns a name as Markdown that shows it, in one line."""
    return _MARKDOWN.sub(r"\\\g<0>", one_line(name))


def in_csv(name):
    """Returns a name for a cell of a CSV file that a spreadsheet shows as it is."""
    return f"'{name}" if name.startswith(_FORMULA) else name


def in_protobuf(name):
    """Returns a name as a quoted string of protobuf's text format."""
    return json.dumps(one_line(name), ensure_ascii=False)
