"""User-defined names, such as those of classes, escaped for text with markup."""

import json
import re

# Characters with a meaning in Markdown, except `_`, which has none within a word.
_MARKDOWN = re.compile(r"[\\|<$`*\[]")
# Characters that start a formula in a spreadsheet.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def one_line(name):
    """Returns a name with escaped line breaks and other control characters."""
    is_shown = str.isprintable
    return "".join(
        c if is_shown(c) else c.encode("unicode_escape").decode() for c in name
    )


def in_markdown(name):
    """Returns a name escaped for Markdown, on one line."""
    return _MARKDOWN.sub(r"\\\g<0>", one_line(name))


def in_csv(name):
    """Returns a name for a cell of a CSV file, so that spreadsheets see no formula."""
    return f"'{name}" if name.startswith(_FORMULA) else name


def in_protobuf(name):
    """Returns a name as a quoted string in protobuf's text format."""
    return json.dumps(one_line(name), ensure_ascii=False)
