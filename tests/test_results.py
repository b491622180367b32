import json
import runpy
import subprocess
import sys

import pytest

from tests.test_readme import ROOT

pytestmark = pytest.mark.one_backend

main = runpy.run_path(str(ROOT / "tools" / "results.py"))["main"]


def _write_run(folder, **changes):
    run = {
        "recipe": "digits",
        "backend": "jax",
        "precision": "float32",
        "epochs": 2,
        "batch_size": 32,
        "seed": 0,
        "test_accuracy": 0.5,
        "train_seconds": 10.0,
        **changes,
    }
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(run))


def test_seeds_share_a_row_and_all_else_has_its_own(tmp_path, capsys):
    accuracies = {2: 0.9, 0: 0.75, 1: 0.8}
    for seed, accuracy in accuracies.items():
        _write_run(
            tmp_path / "digits" / str(seed),
            seed=seed,
            test_accuracy=accuracy,
            train_seconds=10.0 + seed,
        )
    _write_run(tmp_path / "half", precision="mixed_bfloat16")
    _write_run(tmp_path / "longer", epochs=3, test_accuracy=1.0)
    _write_run(tmp_path / "clipart" / "1", recipe="clipart", backend="torch")
    (tmp_path / "unfinished").mkdir()
    main([str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| clipart | torch | 0 | 0.5000 | 0.5000 | 10 |",
        "| digits | jax | 0, 1, 2 | 0.7500, 0.8000, 0.9000 | 0.8000 | 10, 11, 12 |",
        "| digits | jax | 0 | 1.0000 | 1.0000 | 10 |",
        "| digits | jax, mixed_bfloat16 | 0 | 0.5000 | 0.5000 | 10 |",
    ]


def test_no_runs_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match=r"no metrics.json in .*Train first"):
        main([str(tmp_path)])


def test_make_results(tmp_path):
    _write_run(tmp_path / "1")
    result = subprocess.run(
        ["make", "results", f"PYTHON={sys.executable}", f"ARGS={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "| digits | jax | 0 | 0.5000 |" in result.stdout
