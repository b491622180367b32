"""Arguments of the command; the page is tested in tests/explorer."""

import importlib.util

import pytest

from keras_perceiver.cli import explore, main
from keras_perceiver.cli import models as cli_models
from tests.models.small import classifier, encoder

pytestmark = pytest.mark.one_backend


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["nothing.keras"], "The model must be a .keras file"),
        (["digit"], "The model must be one of imagenet, .*Did you mean 'digits'?"),
        (["digits", "--port", "70000"], "--port must be from 0 to 65535"),
        (["digits", "--max-mb", "0"], "--max-mb must be positive"),
        (["digits", "--hots", "a"], "no option --hots. Did you mean '--host'?"),
    ],
)
def test_invalid_options(words, error):
    with pytest.raises(SystemExit, match=error):
        main(["explore", *words])


def test_a_missing_extra_is_named(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == "gradio" else find_spec(name),
    )
    with pytest.raises(SystemExit, match=r'pip install "keras_perceiver\[explore\]"'):
        main(["explore", "digits"])


def test_models_are_files_runs_folders_handles_and_presets(tmp_path, capsys):
    classifier().save(tmp_path / "model.keras")
    classifier().save_to_preset(tmp_path / "preset")
    encoder().save_to_preset(tmp_path / "encoder")
    for model, is_preset in (
        (tmp_path, False),
        (tmp_path / "model.keras", False),
        (tmp_path / "preset", True),
        ("digits", True),
        ("hf://owner/model", True),
    ):
        options = explore.parser().parse_args([str(model)])
        explore.check(options)
        assert options.is_preset == is_preset
        assert str(tmp_path) not in options.title
    assert type(cli_models.from_preset(tmp_path / "encoder")).__name__ == "Perceiver"
    found = cli_models.from_preset(tmp_path / "preset")
    assert type(found).__name__ == "PerceiverClassifier"
    assert capsys.readouterr().err == ""
    cli_models.from_preset("digits")
    assert "has random weights" in capsys.readouterr().err
