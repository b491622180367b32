"""The studies: data, counts, and continuation after interruptions."""

import functools
import importlib

import numpy as np
import pytest
from matplotlib import pyplot as plt

from keras_perceiver import recipes
from keras_perceiver.data import digits
from keras_perceiver.recipes import _mock
from tests.documents import ROOT

pytestmark = [pytest.mark.one_backend, pytest.mark.integration]


@pytest.fixture(autouse=True)
def _tools(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    study = _module("study")
    fit_and_score = study.fit_and_score

    def eagerly(model, *arguments):
        # For a few steps, compilation takes longer than it saves.
        model.compile = functools.partial(model.compile, run_eagerly=True)
        return fit_and_score(model, *arguments)

    monkeypatch.setattr(study, "fit_and_score", eagerly)


def _module(name):
    return importlib.import_module(name)


def test_pixels_are_permuted_with_their_features():
    module = _module("permutation_study")
    splits = digits(4)
    features = module.fourier_features((8, 8, 1))
    assert features.shape == (8, 8, 2 * (2 * 4 + 1))
    assert any(np.allclose(x, np.linspace(-1, 1, 8)) for x in features[0].T)
    order = np.random.default_rng(0).permutation(64)
    changed = module.changed(splits, order, features)
    images, labels = next(splits.test.unbatch().batch(4).as_numpy_iterator())
    found, same_labels = next(changed.test.unbatch().batch(4).as_numpy_iterator())
    np.testing.assert_array_equal(labels, same_labels)
    whole = np.concatenate([images, np.broadcast_to(features, (4, 8, 8, 18))], axis=-1)
    expected = whole.reshape(4, 64, 19)[:, order].reshape(4, 8, 8, 19)
    np.testing.assert_array_equal(found, expected)
    for dataset in (changed.train, changed.validation, changed.epochs(0, 1)):
        assert dataset.element_spec[0].shape[1:] == (8, 8, 19)


@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3)])
def test_models_are_of_about_one_size(shape):
    module = _module("permutation_study")
    order = np.arange(shape[0] * shape[1])
    counts = [
        module._perceiver(shape, 10, order, True).count_params(),
        module._resnet(shape, 10).count_params(),
        module._vit(shape, 10).count_params(),
    ]
    assert max(counts) < 1.35 * min(counts)


@pytest.mark.slow
def test_permutation_changes_nothing_for_a_perceiver(tmp_path, monkeypatch, capsys):
    module = _module("permutation_study")
    arguments = ["--epochs", "1", "--seeds", "0", "--models", "Perceiver"]
    arguments += [
        "--positions",
        "Fourier",
        "--batch-size",
        "512",
        "--output",
        str(tmp_path),
    ]
    module.main(arguments)
    text = capsys.readouterr().out
    (line,) = (x for x in text.splitlines() if x.startswith("| Perceiver (Fourier)"))
    _, _, _, raw, permuted, difference, _ = (x.strip() for x in line.split("|"))
    assert raw == permuted
    assert difference == "+0.00"
    lines = (tmp_path / "permutation-digits.csv").read_text().splitlines()
    assert len(lines) == 1 + 2
    assert plt.imread(tmp_path / "permutation-digits.png").std() > 0

    # Completed runs are not repeated.
    monkeypatch.setattr(module, "_run", None)
    module.main(arguments)
    assert capsys.readouterr().out == text
    monkeypatch.setattr(module, "_run", lambda *_: {"parameters": 1, "accuracy": 0.5})
    module.main([*arguments[:4], "1", *arguments[4:]])
    lines = (tmp_path / "permutation-digits.csv").read_text().splitlines()
    assert len(lines) == 1 + 4
    out = capsys.readouterr().out
    # Mean and standard deviation of the samples.
    score = float(raw.split()[0])
    mean, deviation = (score + 50) / 2, abs(score - 50) / 2**0.5
    found = next(x for x in out.splitlines() if x.startswith("| Perceiver (Fourier)"))
    assert f"| {mean:.2f} ± {deviation:.2f} |" in found


@pytest.mark.slow
def test_ablation_has_every_arrangement_once(tmp_path, capsys, monkeypatch):
    module = _module("ablation_study")
    # Training is covered by the test above.
    monkeypatch.setattr(module.study, "fit_and_score", lambda *_: 0.5)
    arguments = ["--epochs", "1", "--seeds", "0", "--batch-size", "512"]
    arguments += ["--cross-attends", "1", "2", "--output", str(tmp_path)]
    module.main(arguments)
    out = capsys.readouterr().out
    rows = [x.split("|")[1:-1] for x in out.splitlines() if x.startswith("| ")][2:]
    found = {(int(row[0]), row[1].strip()): row[2:4] for row in rows}
    assert found.keys() == {
        (1, "interleaved"),
        (2, "interleaved"),
        (2, "at start"),
        (1, "interleaved, not shared"),
        (2, "interleaved, not shared"),
    }
    # Their position costs nothing. Their number costs FLOPs, and unshared weights only
    # parameters.
    assert found[2, "at start"] == found[2, "interleaved"]
    assert found[2, "interleaved"][1] == found[2, "interleaved, not shared"][1]
    assert float(found[2, "interleaved"][1]) > float(found[1, "interleaved"][1])
    assert plt.imread(tmp_path / "ablation-digits.png").std() > 0


def test_other_data_are_refused(tmp_path):
    _mock.write_files(tmp_path, recipes.get("furniture").preprocessor())
    arguments = ["--recipe", "furniture", "--data", str(tmp_path), "--batch-size", "4"]
    for name in ("permutation_study", "ablation_study"):
        with pytest.raises(SystemExit, match="needs images with one label each"):
            _module(name).main([*arguments, "--output", str(tmp_path / "never")])
    assert not (tmp_path / "never").exists()


@pytest.mark.slow
def test_scaling_study_measures_until_it_does_not_fit(tmp_path, capsys, monkeypatch):
    module = _module("scaling_study")
    arguments = ["--sides", "16", "--depths", "4", "--calls", "1", "--mode", "forward"]
    arguments += ["--output", str(tmp_path)]
    module.main(arguments)
    out = capsys.readouterr().out
    (line,) = (x for x in out.splitlines() if x.startswith("| 256 | 4 |"))
    for cell in line.split("|")[3:5]:
        seconds, memory = map(float, cell.split(","))
        assert 0 < seconds < 60
        assert 0.1 < memory < 10
    (figure,) = tmp_path.glob("scaling-*-forward.png")
    assert plt.imread(figure).std() > 0

    # A measurement that needs too much memory is ended, and the study continues.
    monkeypatch.setattr(module, "MODELS", ("transformer",))
    monkeypatch.setattr(module, "_plot", lambda *_: None)
    module.main([*arguments, "--sides", "32", "--max-gib", "0.02"])
    assert "| 1,024 | 4 | does not fit |" in capsys.readouterr().out


@pytest.mark.parametrize(
    "error", ["RESOURCE_EXHAUSTED: Out of memory allocating 7 bytes.", "A fault."]
)
def test_scaling_study_distinguishes_out_of_memory_from_faults(
    error, tmp_path, capsys, monkeypatch
):
    module = _module("scaling_study")
    worker = tmp_path / "worker.py"
    worker.write_text(f"raise RuntimeError({error!r})")
    monkeypatch.setattr(module, "__file__", str(worker))
    monkeypatch.setattr(module, "MODELS", ("transformer",))
    monkeypatch.setattr(module, "_plot", lambda *_: None)
    arguments = ["--sides", "16", "--depths", "4", "--output", str(tmp_path)]
    if error == "A fault.":
        with pytest.raises(SystemExit, match="failed: RuntimeError: A fault."):
            module.main(arguments)
    else:
        module.main(arguments)
        assert "| 256 | 4 | does not fit |" in capsys.readouterr().out
