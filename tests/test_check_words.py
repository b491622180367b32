"""The check of words in `make lint`."""

import tomllib

import check_words
import nbformat
import pytest

from tests.documents import ROOT

pytestmark = pytest.mark.one_backend

PATTERNS = {"red apples?": "fruit", '"""(?:Eats)': "Consumes"}


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        ("A Red apple.", 1, "Red apple"),
        ("\n# some red\n    # apples", 2, "red # apples"),
        ('x = (\n    "red "\n    f"apple {n}"\n)', 2, 'red " f"apple'),
        ('def f():\n    """Eats whatever it is."""', 2, '"""Eats'),
    ],
)
def test_finds_phrases(text, line, found):
    found_words = [(n, words) for n, words, _ in check_words.check(text, PATTERNS)]
    assert found_words == [(line, found)]


@pytest.mark.parametrize("text", ["red applesauce", "red. Apple", "red\n\napples", ""])
def test_leaves_other_words_alone(text):
    assert list(check_words.check(text, PATTERNS)) == []


def test_reads_cells_of_notebooks_without_outputs(tmp_path):
    output = nbformat.v4.new_output("stream", text="red apple")
    cells = [
        nbformat.v4.new_markdown_cell("A title\n\nA red\napple"),
        nbformat.v4.new_code_cell("1 + 1", outputs=[output]),
    ]
    path = tmp_path / "notebook.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    assert check_words.read(path) == "A title\n\nA red\napple\n\n1 + 1"


def test_replacements_are_valid():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = config["tool"]["check_words"]
    for fix in patterns.values():
        assert list(check_words.check(fix, patterns)) == []
