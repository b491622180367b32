"""The README and docs/: code runs, links are valid, and tables are correct."""

import importlib
import re
import runpy
import shlex
import subprocess
import sys

import keras
import pytest

from keras_perceiver import PerceiverClassifier, recipes
from tests import documents
from tests.documents import DOCUMENTS, ROOT
from tests.models.test_presets import IMAGENET_COUNTS

pytestmark = pytest.mark.integration

# Make targets that run no program with its own arguments.
_PLAIN_TARGETS = {"test", "test-slow", "lint", "docs", "help", "constraints"}


def _backend_of(command):
    return (re.findall(r"BACKEND=(\w+)", command) or ["tensorflow"])[0]


def _options_of(command):
    return dict(word.split("=", 1) for word in shlex.split(command)[2:])


def _without_sizes(arguments):
    return re.sub(r"--set (epochs|batch_size)=\d+", "", arguments)


@pytest.mark.one_backend
def test_every_block_is_marked():
    for block in documents.blocks():
        assert not re.search(r"^\$ ", block.code, re.MULTILINE), "a prompt is copied"
        if block.language in ("python", "bash"):
            assert block.mark in ("run", "parse", "shown"), block.name
            assert block.options or block.mark != "shown", block.name
        else:
            assert block.mark in (None, "output", "shown"), block.name


@pytest.mark.one_backend
def test_ci_runs_the_test_command():
    assert "make test" in documents.commands("parse")
    assert "make test" in (ROOT / ".ci" / "run").read_text().splitlines()


def _train_commands():
    """Yields the commands of the current backend. Only `make train` is fast."""
    commands = documents.commands("run")
    assert "make train" in commands
    for command in commands:
        if _backend_of(command) == keras.backend.backend():
            is_slow = command != "make train"
            yield pytest.param(command, marks=[pytest.mark.slow] * is_slow)


@pytest.mark.parametrize("command", list(_train_commands()))
def test_train_commands(command, tmp_path):
    # As documented, but in this environment and with smaller sizes.
    backend = _backend_of(command)
    sizes = (
        "--set epochs=1 --set batch_size=400 "
        f"--run-folder {tmp_path}/run --export-folder {tmp_path}/exports"
    )
    if command.startswith("make train"):
        given = _options_of(command)
        given["VENV"] = sys.prefix
        given["ARGS"] = f"{_without_sizes(given.get('ARGS', ''))} {sizes}"
        words = [
            *("make", "-o", f"{sys.prefix}/.installed-train-{backend}", "train"),
            *(f"{name}={value}" for name, value in given.items()),
        ]
    else:
        program, *arguments = documents.program_of(_without_sizes(command))
        assert program == "keras-perceiver"
        assert arguments[0] == "train"
        words = [sys.executable, "-m", "keras_perceiver", *arguments, *sizes.split()]
    result = subprocess.run(
        words,
        cwd=ROOT,
        env={**documents.environment(), "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, (result.stdout + result.stderr)[-2000:]
    lines = result.stdout.strip().splitlines()
    if words[0] == "make":
        lines = lines[1:]  # without the command that it prints
    start, accuracy, *_, saved, exported, after = lines
    assert re.fullmatch(
        rf"digits on {backend}: [\d,]+ parameters, 1 epochs of 3 steps -> "
        f"{tmp_path}/run",
        start,
    )
    assert re.fullmatch(r"test_accuracy: [01]\.\d{4}", accuracy)
    assert saved == f"saved: {tmp_path}/run/model.keras"
    assert exported == f"exported: {tmp_path}/exports/1"
    assert after.endswith(f" evaluate {tmp_path}/run")
    assert (tmp_path / "run" / "model.keras").is_file()
    assert (tmp_path / "exports" / "1" / "saved_model.pb").is_file()


@pytest.mark.one_backend
@pytest.mark.parametrize("command", documents.commands("parse"))
def test_arguments_of_commands_are_understood(command):
    if command.startswith("make ") and shlex.split(command)[1] in _PLAIN_TARGETS:
        documents.program_of(command)
        return
    program, *arguments = documents.program_of(command)
    if program.endswith(("python", "python3")) and arguments[0].startswith("tools/"):
        tool, *arguments = arguments
        runpy.run_path(str(ROOT / tool))["parser"]().parse_args(arguments)
        return
    if program.endswith(("python", "python3")):
        assert arguments[:2] == ["-m", "keras_perceiver"]
        arguments = arguments[2:]
    else:
        assert program.split("/")[-1] == "keras-perceiver"
    name, *arguments = arguments
    module = f"keras_perceiver.cli.{name.replace('-', '_')}"
    importlib.import_module(module).parser().parse_args(arguments)


def _number_free(text):
    return re.sub(r"-?\d[\d,.]*(e-?\d+)?", "#", text).split()


# On one backend, since other tests cover all of them.
@pytest.mark.one_backend
@pytest.mark.parametrize(
    "program",
    [
        pytest.param(
            program,
            id=program[0].name,
            marks=[pytest.mark.slow] * ("slow" in program[0].options),
        )
        for program in documents.programs()
    ],
)
def test_code_blocks(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some write files
    for block, printed in documents.run(program, use_options=True):
        assert _number_free(printed) == _number_free(block.code)


@pytest.mark.one_backend
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_are_valid(document):
    for link in documents.links(document):
        if re.match(r"[a-z]+:", link):
            assert link.startswith("https://"), link
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), link
        if anchor:
            assert anchor in documents.anchors(target), link


@pytest.mark.one_backend
def test_every_page_and_image_is_linked():
    found = {
        (document.parent / link.partition("#")[0]).resolve()
        for document in DOCUMENTS
        for link in documents.links(document)
    }
    assert {path for path in DOCUMENTS[1:]} <= found
    assert {path for path in (ROOT / "docs" / "images").glob("*")} <= found


@pytest.mark.one_backend
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_lines_are_short(document):
    for line in documents.without_code(document).splitlines():
        is_unbreakable = line.startswith(("|", "![", "<"))
        assert is_unbreakable or len(line) <= 120, line


@pytest.mark.one_backend
def test_preset_table_is_true():
    rows = re.findall(
        r"^\| `(\w+)`(?:, `(\w+)=(\w+)`)? \| ([\d,]+) \| ([\d.]+) ",
        (ROOT / "docs" / "models.md").read_text(),
        re.M,
    )
    assert {row[0] for row in rows} == set(PerceiverClassifier.presets)
    # tests/models/test_presets.py compares these counts with the models.
    true = {
        (name, "", ""): (preset.parameters, preset.gflops)
        for name, preset in PerceiverClassifier.presets.items()
    }
    for overrides, parameters, gflops in IMAGENET_COUNTS:
        for key, value in overrides.items():
            true["imagenet", key, str(value)] = parameters, gflops
    for *row, parameters, gflops in rows:
        expected = true[tuple(row)]
        assert parameters == f"{expected[0]:,}"
        assert float(gflops) == pytest.approx(expected[1], rel=0.02)


@pytest.mark.one_backend
def test_table_of_arguments_has_our_names():
    import keras_perceiver as kp

    byte_array = kp.Config(kp.ByteArray, modality=kp.Config(kp.Image, shape=(2, 2, 1)))
    config = kp.Config(
        kp.Perceiver,
        modality=byte_array,
        cross_attend=kp.Config(kp.CrossAttend),
        self_attend=kp.Config(kp.SelfAttend),
    )
    # Rows are arguments, or the last parts of dotted paths.
    known = {
        ".".join(path.split(".")[i:])
        for path in config.paths()
        for i in range(path.count(".") + 1)
    }
    named = {
        name
        for row in re.findall(
            r"^\| ([^|]+) \|",
            documents.section(ROOT / "docs" / "migration.md", "Arguments"),
            re.MULTILINE,
        )
        for name in re.findall(r"`([\w.]+)`", row)
    }
    assert len(named) > 12
    assert named <= known


@pytest.mark.one_backend
def test_table_of_recipes_has_every_recipe():
    table = documents.section(ROOT / "docs" / "guides" / "training.md", "Recipes")
    names = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| ([^|]+)", table, re.M)))
    assert sorted(names) == recipes.names()


@pytest.mark.one_backend
def test_make_help_lists_the_targets():
    result = subprocess.run(
        ["make", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True
    )
    for target in (
        "help",
        "train",
        "evaluate",
        "tune",
        "results",
        "test",
        "lint",
        "benchmark",
        "docs",
        "constraints",
    ):
        assert re.search(rf"^{target} ", result.stdout, re.MULTILINE)


@pytest.mark.one_backend
def test_make_refuses_an_unknown_backend():
    result = subprocess.run(
        ["make", "-C", str(ROOT), "train", "BACKEND=theano"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode
    assert "error: BACKEND must be one of tensorflow, jax, torch" in result.stderr
