import csv
import runpy
import subprocess
import sys

import keras
import pytest

from keras_perceiver import PerceiverClassifier
from tests.documents import ROOT

pytestmark = pytest.mark.integration


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "name", "num_inputs"),
    [
        pytest.param(
            *(["--work", "tiny", "--modes", "train"], "tiny", [50_176] * 2),
            marks=pytest.mark.one_backend,
        ),
        (["--sweep", "--sizes", "6272", "--modes", "forward"], "sweep", [6_272]),
    ],
)
def test_measures_and_writes_table_and_plot(arguments, name, num_inputs, tmp_path):
    program = ROOT / "tools" / "benchmark.py"
    competitor = f"ours {keras.backend.backend()}"
    result = subprocess.run(
        [
            *(sys.executable, program, *arguments, "--competitors", competitor),
            *("--repetitions", "1", "--calls", "1", "--output", tmp_path),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    with (tmp_path / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["num_inputs"]) for row in rows] == num_inputs
    measured = ("first_call_seconds", "seconds", "peak_gib", "gflops")
    assert all(float(row[field]) > 0 for row in rows for field in measured)
    assert keras.__version__ in rows[0]["versions"]
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    table = [line for line in result.stdout.splitlines() if line.startswith("| ")]
    names = {line.split(" | ")[0].removeprefix("| ") for line in table[2:]}
    assert names - {f"matmul {keras.backend.backend()}"} == {competitor}
    assert len(table) == len(rows) + 2


@pytest.mark.one_backend
def test_other_works_are_presets_and_get_an_example_of_their_size():
    program = runpy.run_path(str(ROOT / "tools" / "benchmark.py"))
    example = runpy.run_path(str(ROOT / "tools" / "benchmark_worker.py"))["example"]
    assert program["OTHER_WORKS"].keys() <= PerceiverClassifier.presets.keys()
    small = {"num_latents": 4, "latent_dim": 16, "num_blocks": 1}
    points = PerceiverClassifier.from_preset("modelnet40", **small)
    inputs, _ = example(points, 30)
    assert inputs.shape == (1, 30, 3)
    assert points.predict_on_batch(inputs).shape == (1, 40)
    # Two modalities with known numbers of elements.
    both = PerceiverClassifier.from_preset("audioset_raw_video", **small)
    inputs, _ = example(both, program["OTHER_WORKS"]["audioset_raw_video"])
    assert {name: x.shape[1] for name, x in inputs.items()} == {
        "audio": 61_440,
        "video": 32,
    }
    tasks = program["model_tasks"](
        program["parser"]().parse_args(
            ["--work", "modelnet40", "--competitors", "ours jax", "transformers"]
        )
    )
    names = [task["competitor"] for task in tasks if task["mode"] == "train"]
    assert names == ["ours jax"]  # the peers lack this model


@pytest.mark.slow
@pytest.mark.one_backend
def test_pipeline_against_training(tmp_path):
    result = subprocess.run(
        [
            *(sys.executable, ROOT / "tools" / "benchmark.py", "--pipeline"),
            *("--competitors", "ours torch", "--repetitions", "1", "--calls", "1"),
            *("--batches", "2", "--output", tmp_path),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    with (tmp_path / "pipeline.csv").open() as file:
        rows = list(csv.DictReader(file))
    speeds = {
        (row["work"], row["mode"]): int(row["num_inputs"]) / float(row["seconds"])
        for row in rows
    }
    table = [line for line in result.stdout.splitlines() if line.startswith("| ")]
    for work, line in zip(("digits", "images_64"), table[2:], strict=True):
        _, name, competitor, *numbers, _ = line.split("|")
        assert (name.strip(), competitor.strip()) == (work, "ours torch")
        found = [float(number.replace(",", "")) for number in numbers]
        given, taken = speeds[work, "pipeline"], speeds[work, "consume"]
        assert found == pytest.approx([given, taken, given / taken], rel=0.02, abs=0.5)
