"""The notebooks: they run, and their outputs are those of their code."""

import subprocess
import sys

import keras
import nbformat
import pytest
import run_notebooks

from tests.documents import ROOT

pytestmark = [pytest.mark.one_backend, pytest.mark.integration]

# Only one of them is fast, since each takes as long as dozens of tests.
FAST = "06_attention_maps"
ALL = [pytest.param(path, id=path.stem) for path in run_notebooks.find()]


def _read(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def _num_figures(notebook):
    return sum(
        "image/png" in output.get("data", {})
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(*p.values, id=p.id, marks=[pytest.mark.slow] * (p.id != FAST))
        for p in ALL
    ],
)
def test_runs(path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", keras.backend.backend())
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = _read(path)
    ran = run_notebooks.run(notebook, notebook.metadata["test_parameters"])
    assert _num_figures(ran) == _num_figures(notebook)


@pytest.mark.slow
def test_fine_tunes_a_model_of_transformers(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", keras.backend.backend())
    monkeypatch.delenv("MPLBACKEND", raising=False)
    program = [sys.executable, "-m", "tests.convert.transformers_models"]
    subprocess.run([*program, "write", tmp_path], cwd=ROOT, check=True)
    (path,) = run_notebooks.find(["12"])
    notebook = _read(path)
    parameters = notebook.metadata["test_parameters"]
    preset = str(tmp_path / "learned")
    ran = run_notebooks.run(notebook, {**parameters, "PRESET": preset})
    text = "".join(
        output.get("text", "")
        for cell in ran.cells
        for output in cell.get("outputs", [])
    )
    assert "A to P" not in text
    assert "all weights: " in text


@pytest.mark.parametrize("path", ALL)
def test_outputs_are_those_of_the_code(path):
    notebook = _read(path)
    assert run_notebooks.is_fresh(notebook), f"run: make notebooks ARGS={path.stem[:2]}"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert all(output.output_type != "error" for output in outputs)
    assert all(output.get("name") != "stderr" for output in outputs)
    assert _num_figures(notebook) >= 2
    assert path.stat().st_size <= run_notebooks.MAX_BYTES


@pytest.mark.parametrize("path", ALL)
def test_says_what_comes_and_ends_with_a_comparison(path):
    first, install, *rest = _read(path).cells
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert "You will see" in first.source
    assert "%pip install" in install.source
    headings = [
        line
        for cell in rest
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("## ")
    ]
    assert headings[-1] == "## Compared with a simple baseline"
    assert len(rest) < 25


def _notebook(*sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[0].metadata["tags"] = ["parameters"]
    return nbformat.v4.new_notebook(cells=cells)


def test_parameters_replace_values_of_their_cell():
    notebook = _notebook("EPOCHS = 30", "print(EPOCHS)")
    changed = run_notebooks.with_parameters(notebook, {"EPOCHS": 1})
    assert changed.cells[0].source == "EPOCHS = 30\nEPOCHS = 1"
    assert notebook.cells[0].source == "EPOCHS = 30"
    with pytest.raises(ValueError, match=r"one of \['EPOCHS'\]. Received: \['STEPS'\]"):
        run_notebooks.with_parameters(notebook, {"STEPS": 1})


def test_hash_follows_the_code_and_not_the_text(tmp_path):
    notebook = _notebook("a = 1", "a")
    assert not run_notebooks.is_fresh(notebook)
    path = tmp_path / "notebook.ipynb"
    run_notebooks.write(notebook, path)
    notebook = _read(path)
    assert run_notebooks.is_fresh(notebook)
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell("# Title"))
    assert run_notebooks.is_fresh(notebook)
    notebook.cells[2].source = "a + 1"
    assert not run_notebooks.is_fresh(notebook)


def test_large_notebooks_are_not_written(tmp_path):
    notebook = _notebook("a = 1")
    notebook.cells[0].outputs = [
        nbformat.v4.new_output("stream", text="0" * run_notebooks.MAX_BYTES)
    ]
    with pytest.raises(ValueError, match="at most 300,000 bytes"):
        run_notebooks.write(notebook, tmp_path / "notebook.ipynb")
    assert not list(tmp_path.iterdir())


def test_stderr_is_refused_but_for_lines_of_native_libraries():
    native = "2026-01-01 00:00:00.1: I external/port.cc:153] oneDNN"
    native += "\n\t [[{{node cond_1/Assert}}]]"
    code = "import sys\nprint({!r}, file=sys.stderr)"
    ran = run_notebooks.run(_notebook(code.format(native), "1 + 1"))
    assert not ran.cells[0].outputs
    assert ran.cells[1].outputs[0].data["text/plain"] == "2"
    with pytest.raises(ValueError, match="nothing to stderr. Received: careful"):
        run_notebooks.run(_notebook(code.format("careful")))


def test_names_are_checked():
    assert [path.stem[:2] for path in run_notebooks.find(["01", "05"])] == ["01", "05"]
    with pytest.raises(ValueError, match="Received: 99"):
        run_notebooks.find(["99"])
