"""The READMEs and the pages in docs/: code blocks, their marks, and links.

A mark is an HTML comment on the line before a code block, such as `<!-- run: slow -->`:

    run                         the block is run
    run: epochs=1               run, with another value of `epochs` in the code
    run: slow                   run in the slow tests
    run: continued              run in the namespace of the previous block
    run: slow, epochs=1         several of these
    output                      the output of the previous block, except for numbers
    parse                       commands, whose arguments are parsed
    shown: needs a server       not run, for this reason

    python -m tests.documents   writes the output of the blocks to the documents
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "notebooks" / "README.md",
    *sorted(
        page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "api"
    ),
]
MARKS = ("run", "output", "parse", "shown")

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[a-z]+)(?:: (?P<options>[^\n]*))? -->\n)?"
    r"^```(?P<language>\w+)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\((?P<target>[^()\s]+)\)")


class Block(NamedTuple):
    """A code block of a document."""

    document: Path
    line: int
    language: str
    mark: str | None
    options: str
    code: str

    @property
    def name(self):
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self):
        """The lines of a block of commands, with continuation lines joined."""
        return self.code.replace("\\\n", " ").strip().splitlines()


def blocks(*documents):
    """Returns the code blocks of some documents, or of all documents."""
    found = []
    for document in documents or DOCUMENTS:
        text = document.read_text()
        for match in _BLOCK.finditer(text):
            mark, options, language, code = match.group(
                "mark", "options", "language", "code"
            )
            line = text.count("\n", 0, match.start("code"))
            found.append(Block(document, line, language, mark, options or "", code))
    return found


def programs():
    """Returns lists of Python blocks to run, and of their outputs.

    A list is a block, then those that continue it. Each may be followed by its output.
    """
    found = []
    for block in blocks():
        is_python = block.language == "python" and block.mark == "run"
        if is_python and "continued" not in block.options:
            found.append([block])
        elif is_python or block.mark == "output":
            found[-1].append(block)
    return found


def commands(mark):
    """Returns all commands with a mark, without duplicates."""
    return list(
        dict.fromkeys(
            command
            for block in blocks()
            if block.language == "bash" and block.mark == mark
            for command in block.commands
        )
    )


def without_code(document):
    """Returns the text of a document without its code blocks."""
    return _BLOCK.sub("", document.read_text())


def links(document):
    """Returns the targets of links and images of a document."""
    text = re.sub(r"`[^`\n]*`", "", without_code(document))
    return [match["target"] for match in _LINK.finditer(text)]


def anchors(document):
    """Returns the anchors that GitHub gives the headings of a document."""
    found = []
    for heading in re.findall(r"^#+ (.*)$", without_code(document), re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.append(anchor if anchor not in found else f"{anchor}-1")
    return found


def section(document, heading):
    """Returns the text under a heading of a document, up to the next heading."""
    _, _, text = document.read_text().partition(f"# {heading}\n")
    return re.split(r"^#+ ", text, maxsplit=1, flags=re.MULTILINE)[0]


def environment():
    """Returns the environment without variables of the tests' own make and pytest."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "PYTEST"))}


def program_of(command):
    """Returns the words of a command, or of the recipe of a `make` target."""
    words = shlex.split(command)
    if words[0] == "make":
        result = subprocess.run(
            [*words, "--dry-run", "--no-print-directory"],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        words = shlex.split(result.stdout.strip().splitlines()[-1])
    return [word for word in words if not word.startswith(("KERAS_BACKEND=", "TF_"))]


def run(program, use_options):
    """Runs a program in the working directory.

    Args:
        program: One of `programs()`.
        use_options: Boolean, whether values in marks such as `epochs=1` replace those
            of the code.

    Yields:
        Pairs of an output block, and the output of the previous block.
    """
    _write_photos(Path("photos"))
    namespace, printed = {}, None
    for block in program:
        if block.mark == "output":
            yield block, printed
            continue
        code = block.code
        for name, value in re.findall(r"(\w+)=([^,\s]+)", block.options):
            assert f"{name}=" in code, (block.name, name)
            if use_options:
                code = re.sub(rf"\b{name}=[^,)\s]+", f"{name}={value}", code)
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(code, namespace)  # noqa: S102  our own documents
        printed = output.getvalue()


def _write_photos(folder):
    """Writes a folder of images, and one next to it, for the code in the README."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(10):
            image = rng.integers(0, 256, (48, 40, 3)).astype("uint8")
            keras.utils.save_img(folder / name / f"{i}.png", image, scale=False)
    keras.utils.save_img(folder.parent / "photo.png", image, scale=False)


def _write_outputs():
    for program in programs():
        if not any(block.mark == "output" for block in program):
            continue
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            for block, printed in run(program, use_options=False):
                text = block.document.read_text()
                old = f"<!-- output -->\n```{block.language}\n{block.code}```"
                new = f"<!-- output -->\n```{block.language}\n{printed}```"
                block.document.write_text(text.replace(old, new, 1))
                print(f"{block.name}: {printed}", end="")


if __name__ == "__main__":
    _write_outputs()
