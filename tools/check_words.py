"""Finds phrases that have a plainer one, in code, docs and notebooks.

    python tools/check_words.py

Of notebooks it reads the cells, without their outputs.

The phrases are regular expressions in pyproject.toml, each with what to write instead.
Only needs the standard library.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

_ROOT = Path(__file__).parent.parent
_FILES = ("*.py", "*.md", "*.c", "*.ipynb", "Makefile")
# A space, or a line break within a paragraph, a comment or a string.
_BREAK = r"(?: +| *\"?\n *(?:# |f?\")?)"


def main():
    words = tomllib.loads((_ROOT / "pyproject.toml").read_text())
    patterns = words["tool"]["check_words"]
    found = [
        f"{path}:{line}: {text!r}: {fix}"
        for path in _files()
        for line, text, fix in check(read(path), patterns)
    ]
    if found:
        sys.exit("\n".join(found))


def read(path):
    """Returns the text of a file, and of a notebook that of its cells."""
    text = path.read_text()
    if path.suffix != ".ipynb":
        return text
    return "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])


def check(text, patterns):
    """Yields the line, the text and the fix of every phrase in a text.

    Args:
        text: String.
        patterns: Dict from regular expressions, in which a space matches a line break as
            well, to what to write instead.
    """
    for pattern, fix in patterns.items():
        spaced = rf"(?<!\w)(?:{pattern})(?!\w)".replace(" ", _BREAK)
        for match in re.finditer(spaced, text, re.IGNORECASE):
            line = text.count("\n", 0, match.start()) + 1
            yield line, " ".join(match[0].split()), fix


def _files():
    command = ["git", "ls-files", "-z", *_FILES]
    result = subprocess.run(
        command, cwd=_ROOT, capture_output=True, text=True, check=True
    )
    return [_ROOT / name for name in result.stdout.split("\0") if name]


if __name__ == "__main__":
    main()
