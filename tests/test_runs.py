import pytest

from keras_perceiver import _runs

pytestmark = pytest.mark.one_backend


def test_latest_checkpoint_is_first(tmp_path):
    for step in (9, 100, 11_000_000_000):
        (tmp_path / _runs.checkpoint_name(step)).touch()
    for name in ("step-x.checkpoint", "step-12.checkpoint.bak", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "step-0000000500.checkpoint").mkdir()
    found = _runs.checkpoint_paths(tmp_path)
    assert [_runs.step_of(path) for path in found] == [11_000_000_000, 100, 9]
    assert _runs.checkpoint_paths(tmp_path / "none") == []


def test_complete_runs(tmp_path):
    assert not _runs.is_finished(tmp_path / "none")
    for name in ("model.keras", "metrics.json"):
        assert not _runs.is_finished(tmp_path)
        (tmp_path / name).touch()
    assert _runs.is_finished(tmp_path)
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    assert _runs.is_finished(tmp_path)
    (checkpoints / "unfinished-step-0000000001.checkpoint").touch()
    assert _runs.is_finished(tmp_path)
    (checkpoints / "step-0000000001.checkpoint").touch()
    assert not _runs.is_finished(tmp_path)
