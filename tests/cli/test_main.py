"""Common behavior of all commands: one-line errors with a fix, before Keras is imported."""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import keras_perceiver
from keras_perceiver import recipes
from keras_perceiver.cli import COMMANDS, arguments, main, presets
from tests.cli import ROOT
from tests.cli.damage import write_archive

pytestmark = pytest.mark.one_backend


def command(*words, cwd=None, **environment):
    """Returns the finished process of a command, with its imports on stderr."""
    environment = {
        "PYTHONPATH": str(ROOT),
        "PYTHONPROFILEIMPORTTIME": "1",
        **environment,
    }
    return subprocess.run(
        [sys.executable, "-m", "keras_perceiver", *map(str, words)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def lines(result):
    """Returns the lines on stderr, after a check that nothing heavy was imported."""
    text = result.stderr.splitlines()
    heavy = re.compile(r"import time: .*\| +(keras|tensorflow|jax|torch)\b")
    assert not [line for line in text if heavy.match(line)]
    return [line for line in text if not line.startswith("import time:")]


_MODEL_RULE = "error: The model must be a .keras file"


@pytest.mark.integration
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian", "digits"], "error: The command must be .*Did you mean 'train'?"),
        (["train", "digit"], "error: `recipe` must be .*Did you mean 'digits'?"),
        (
            ["train", "digits", "--sed", "1"],
            "error: There is no .*Did you mean '--seed'",
        ),
        (["train", "digits", "--batch", "1"], "error: There is no .*--set epochs=3"),
        (
            ["train", "digits", "mnist"],
            "error: There is an unexpected argument: 'mnist'",
        ),
        (["train"], "error: There must be one recipe, or one of --images, .*: none"),
        (
            ["train", "mnist", "--audio", "."],
            "error: There must be .*--audio and mnist",
        ),
        (["train", "--images", "none"], "error: --images must be a folder"),
        (["train", "--images", "."], "error: Files must be at ./CLASS/FILE"),
        (["train", "--points", ".", "--data", "."], "error: --points sets the folder"),
        (
            ["export", "model.keras"],
            "error: the following arguments are required: --to",
        ),
        (["predict", "model.keras", "none.png"], "error: A file must exist"),
        (
            ["predict", "model.keras", ".", "--top", "0"],
            "error: --top must be positive",
        ),
        (
            ["train", "digits", "--set", "epochs"],
            "error: An override must have the form",
        ),
        (
            ["train", "none.py"],
            "error: The recipe file must exist. Received: 'none.py'",
        ),
        (["train", "digits", "--keep", "0"], "error: --keep must be positive"),
        (["train", "digits", "--keep", "x"], "error: argument --keep: invalid int"),
        (
            ["train", "digits", "--precision", "float8"],
            "error: --precision must be one",
        ),
        (["train", "digits", "--data", "none"], "error: --data must be a folder"),
        (
            ["train", "digits", "--resume"],
            "error: There must be a run with checkpoints",
        ),
        (["evaluate", "none"], _MODEL_RULE),
        (["evaluate", "model.kears"], r".*Did you mean 'model\.keras'?"),
        (["evaluate", "model.keras", "--split", "tset"], ".*Did you mean 'test'?"),
        (["evaluate", "model.keras"], "error: The recipe of a model is in the metrics"),
        (["tune", "digits"], "error: A search must have a limit"),
        (["tune", "digits", "--trials", "0"], "error: --trials must be positive"),
        (
            ["tune", "digits", "--algorithm", "grid-search"],
            "error: --algorithm must be",
        ),
        (["export", "none.keras", "--to", "a"], _MODEL_RULE),
        (["export", "model.keras", "--to", "a", "--format", "onxx"], ".*mean 'onnx'?"),
        (["export", "model.keras", "--to", "a", "--weights", "int4"], ".*mean 'int8'?"),
        (
            ["export", "model.keras", "--to", "a.onnx", "--format", "litert"],
            "error: A file for litert must end with '.tflite'",
        ),
        (["results"], "error: The folder of the runs must be a folder"),
        (["results", "."], "error: The folder must contain finished runs"),
        (
            ["serve-client", "localhost", "digits", "a.png"],
            "error: The address must be",
        ),
        (["serve-client", "localhost:1", "digits", "a.png"], "error: A file to send"),
        (
            ["recipes", "mnits"],
            "error: `recipe` must be one of .*Did you mean 'mnist'?",
        ),
        (["presets", "digit"], "error: The preset must .*Did you mean 'digits'?"),
        (
            ["predict", "damaged.keras", "."],
            "error: The model must be an intact .keras",
        ),
        (["verify", "none"], "error: The version must be a folder"),
        (["verify", "."], "error: An exported version must contain SHA256SUMS"),
    ],
)
def test_arguments_are_checked_before_keras_is_imported(words, message, tmp_path):
    write_archive(tmp_path / "model.keras")
    (tmp_path / "damaged.keras").write_text("text")
    result = command(*words, cwd=tmp_path)
    assert result.returncode == 1
    (line,) = lines(result)
    assert re.match(message.replace("?", r"\?"), line), line
    assert not result.stdout
    # Importing NumPy takes a part of the second. Only headers of files need it.
    assert "--images" in words or not re.search(r"\| +numpy\n", result.stderr)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("theano", "error: KERAS_BACKEND must be one of tensorflow, jax, torch. "),
        ("tensorfow", "error: KERAS_BACKEND .*Did you mean 'tensorflow'?"),
    ],
)
def test_unknown_backend(backend, message):
    (line,) = lines(command("train", "digits", KERAS_BACKEND=backend))
    assert re.match(message.replace("?", r"\?"), line)


@pytest.mark.integration
def test_runs_without_keras():
    for words, text in (
        (["--version"], f"keras-perceiver {keras_perceiver.__version__}"),
        (["recipes"], "digits Handwritten digits: a Perceiver"),
        (["recipes", "digits"], "Score: test accuracy"),
        (["train", "--help"], "only pass files that you trust"),
    ):
        result = command(*words)
        assert result.returncode == 0
        assert text in " ".join(result.stdout.split()), result.stdout
        assert lines(result) == []


@pytest.mark.integration
@pytest.mark.slow
def test_the_package_is_whole_in_the_command(tmp_path):
    """A recipe file has access to the same names as any other program."""
    path = tmp_path / "mine.py"
    path.write_text(
        "import keras_perceiver as kp\n"
        "from keras_perceiver import *\n"
        "kp.layers, kp.models, kp.data, kp.config\n"
        "raise ValueError([getattr(kp, n).__name__ for n in kp.__all__] == 0)\n"
    )
    result = command("train", path, PYTHONPROFILEIMPORTTIME="")
    *_, line = result.stderr.splitlines()
    assert line == (
        "error: A recipe file must run without an error. Received: "
        f"{path}, line 4: ValueError: False. Correct the file."
    )
    # TensorFlow's messages at startup are hidden.
    assert result.stderr.splitlines()[:-1] == ["loading Keras on tensorflow ..."]


def test_help_has_every_command(capsys):
    main([])
    text = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n  {name} " in text
        with pytest.raises(SystemExit) as error:
            main([name, "--help"])
        assert error.value.code == 0
        assert f"usage: keras-perceiver {name} " in capsys.readouterr().out


def test_trace_on_request(capsys):
    with pytest.raises(SystemExit, match="error: `recipe` must be one of"):
        main(["recipes", "--trace", "none"])
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="error: `recipe` must be one of"):
        main(["--trace", "recipes", "none"])
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="error: `recipe` must be one of"):
        main(["recipes", "none"])
    assert not capsys.readouterr().err


def test_line_to_copy(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/keras-perceiver"])
    line = arguments.command_line("evaluate", "a b")
    assert line == "KERAS_BACKEND=jax /somewhere/bin/keras-perceiver evaluate 'a b'"
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setattr(sys, "argv", ["/somewhere/keras_perceiver/__main__.py"])
    line = arguments.command_line("evaluate")
    assert line.endswith("python -m keras_perceiver evaluate")


RECIPE_FILE = """
import dataclasses

from keras_perceiver import recipes

RECIPE = dataclasses.replace(
    recipes.get("digits").replace(
        {"model.num_blocks": 1, "model.num_self_attends_per_block": 1}
    ),
    name="mine",
    overrides={},
)
"""


def test_own_recipe_file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path.copy())
    path = tmp_path / "my_own_recipe.py"
    path.write_text(RECIPE_FILE)
    assert recipes.load(path).name == "mine"
    assert sys.modules.pop("my_own_recipe").__file__ == str(path)
    for text, message in (
        ("a = 1\nb = c\n", r"my_own_recipe.py, line 2: NameError: name 'c'"),
        ("a = (\n", r"my_own_recipe.py, line 1: SyntaxError"),
        ("RECIPE = 3\n", "must define RECIPE.*RECIPE=3"),
        (RECIPE_FILE.replace("mine", "mnist"), "must not be that of another.*'mnist'"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            recipes.load(path)
        sys.modules.pop("my_own_recipe", None)
    other = tmp_path / "json.py"
    other.write_text(RECIPE_FILE)
    with pytest.raises(ValueError, match="must not have the name of another module"):
        recipes.load(other)


def test_card_is_the_docstring():
    from keras_perceiver.recipes import digits

    assert recipes.card("digits").splitlines()[0] == digits.__doc__.splitlines()[0]
    assert Path(digits.__file__).is_file()


def test_presets_are_those_of_their_module():
    from keras_perceiver.models.presets import PRESETS

    assert presets.names() == list(PRESETS)


@pytest.mark.integration
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only on Linux")
def test_output_to_a_full_disk():
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "keras_perceiver", "recipes"],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr == (
        "error: A file, or this output, could not be written: [Errno 28] No space left on "
        "device. Make room.\n"
    )


def test_warnings_are_one_line(capsys, monkeypatch):
    def run(options):
        print(text(), end="")

    def text():
        return warnings.formatwarning("Something is\nodd.", UserWarning, "a.py", 3)

    from keras_perceiver.cli import recipes as command

    monkeypatch.setattr(command, "run", run)
    before = text()
    main(["recipes"])
    assert capsys.readouterr().out == "warning: Something is odd.\n"
    assert text() == before  # for a program that calls `main`
