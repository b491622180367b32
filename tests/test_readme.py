"""Every command and every code block of the README is run."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from keras_perceiver import PerceiverClassifier, recipes
from tests.models.test_presets import IMAGENET_COUNTS

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def _blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def _backend_of(command):
    return (re.findall(r"BACKEND=(\w+)", command) or ["tensorflow"])[0]


COMMANDS = [
    command for block in _blocks("bash") for command in block.strip().splitlines()
]


def test_ci_runs_the_test_command():
    assert "make test" in COMMANDS
    assert "make test" in (ROOT / ".ci" / "run").read_text().splitlines()


# A run belongs to the tests of its backend: CI tests all three.
@pytest.mark.parametrize(
    "command",
    [
        # One of each backend in the fast tier.
        pytest.param(command, marks=[pytest.mark.slow] * ("--resume" in command))
        for command in COMMANDS
        if command.startswith("make train")
        and _backend_of(command) == keras.backend.backend()
    ],
)
def test_train_commands(command, tmp_path):
    make, target, *options = shlex.split(command)
    assert (make, target) == ("make", "train")
    given = dict(option.split("=", 1) for option in options)
    # As written, but in this environment and on less of everything.
    given["VENV"] = sys.prefix
    arguments = re.sub(r"--set (epochs|batch_size)=\d+", "", given.get("ARGS", ""))
    given["ARGS"] = (
        f"{arguments} --set epochs=1 --set batch_size=400 "
        f"--run-folder {tmp_path}/run --export-folder {tmp_path}/exports"
    )
    result = subprocess.run(
        [
            *("make", "-o", f"{sys.prefix}/.installed-train-{_backend_of(command)}"),
            target,
            *(f"{name}={value}" for name, value in given.items()),
        ],
        cwd=ROOT,
        env={
            k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "PYTEST"))
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, (result.stdout + result.stderr)[-2000:]
    _, start, accuracy, *_, saved, exported, after = result.stdout.strip().splitlines()
    assert re.fullmatch(
        rf"digits on {_backend_of(command)}: [\d,]+ parameters, 1 epochs of 3 steps -> "
        f"{tmp_path}/run",
        start,
    )
    assert re.fullmatch(r"test_accuracy: [01]\.\d{4}", accuracy)
    assert saved == f"saved: {tmp_path}/run/model.keras"
    assert exported == f"exported: {tmp_path}/exports/1"
    assert after.endswith(f" evaluate {tmp_path}/run")
    assert (tmp_path / "run" / "model.keras").is_file()
    assert (tmp_path / "exports" / "1" / "saved_model.pb").is_file()


def _options(command, *words):
    """Returns the options of a command of the package, as its parser reads them."""
    name = command.replace("-", "_")
    module = importlib.import_module(f"keras_perceiver.cli.{name}")
    return module.parser().parse_args(list(words))


@pytest.mark.one_backend
def test_commands_of_the_package_are_understood():
    # tests/cli and tests/serving do what they do.
    found = [c for c in COMMANDS if c.startswith(".venv/bin/keras-perceiver ")]
    for command in found:
        _options(*shlex.split(command)[1:])
    assert found


# On one backend: what the blocks call is tested on all of them elsewhere.
@pytest.mark.one_backend
@pytest.mark.parametrize("code", _blocks("python"))
def test_code_blocks(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some write files
    exec(code.replace("epochs=30", "epochs=1"), {})  # noqa: S102  our own README


def test_preset_table_is_true():
    rows = re.findall(
        r"^\| `(\w+)`(?:, `(\w+)=(\w+)`)? \| ([\d,]+) \| ([\d.]+) ", README, re.M
    )
    assert {row[0] for row in rows} == set(PerceiverClassifier.presets)
    # tests/models/test_presets.py holds these counts against the models.
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


def test_names_table_has_our_names():
    import keras_perceiver as kp

    byte_array = kp.Config(kp.ByteArray, modality=kp.Config(kp.Image, shape=(2, 2, 1)))
    config = kp.Config(
        kp.Perceiver,
        modality=byte_array,
        cross_attend=kp.Config(kp.CrossAttend),
        self_attend=kp.Config(kp.SelfAttend),
    )
    # Rows are arguments or the ends of paths to them.
    known = {
        ".".join(path.split(".")[i:])
        for path in config.paths()
        for i in range(path.count(".") + 1)
    }
    table = README.split("## Names")[1]
    named = {
        name
        for row in re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
        for name in re.findall(r"`([\w.]+)`", row)
    }
    assert len(named) > 12
    assert named <= known


def test_make_commands_are_understood():
    targets = ("evaluate", "tune", "study")
    commands = [
        c for c in COMMANDS if c.split()[0] == "make" and c.split()[1] in targets
    ]
    assert {c.split()[1] for c in commands} == set(targets)
    for command in commands:
        _, target, *words = shlex.split(command)
        given = dict(option.split("=", 1) for option in words)
        if target == "study":
            name = given.get("STUDY", "permutation")
            assert (ROOT / "tools" / f"{name}_study.py").is_file()
        else:
            recipe = ["digits"] if target == "tune" else []
            _options(target, *recipe, *shlex.split(given["ARGS"]))


def test_recipes_table_has_every_recipe():
    table = README.split("## Recipes")[1].split("\n\n")[2]
    names = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| ([^|]+)", table, re.M)))
    assert sorted(names) == recipes.names()


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


def test_make_refuses_an_unknown_backend():
    result = subprocess.run(
        ["make", "-C", str(ROOT), "train", "BACKEND=theano"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode
    assert "error: BACKEND must be one of tensorflow, jax, torch" in result.stderr
