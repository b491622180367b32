import keras
import nbformat
import pytest
from nbclient import NotebookClient

from tests.documents import ROOT

# Only one of them is fast, since each takes as long as dozens of tests.
FAST = "06_attention_maps"
NOTEBOOKS = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem != FAST))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
]


@pytest.mark.one_backend
@pytest.mark.integration
@pytest.mark.parametrize("path", NOTEBOOKS)
def test_notebook_runs(path, monkeypatch, tmp_path):
    monkeypatch.setenv("NOTEBOOK_EPOCHS", "1")
    monkeypatch.setenv("NOTEBOOK_EXAMPLES", "20")
    monkeypatch.setenv("NOTEBOOK_OUTPUT", str(tmp_path))
    monkeypatch.setenv("KERAS_BACKEND", keras.backend.backend())
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert len(notebook.cells) < 25
    NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": ROOT}}
    ).execute()
    figures = sum(
        "image/png" in output.get("data", {})
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )
    assert figures >= 2
