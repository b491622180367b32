import errno
import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

from keras_perceiver import _files
from keras_perceiver.training import checkpoints as module
from keras_perceiver.training.checkpoints import Checkpoints

pytestmark = pytest.mark.one_backend


def _arrays(step):
    rng = np.random.default_rng(step)
    return [
        rng.normal(size=(3, 4)).astype("float32"),
        np.array(step, "int64"),
        rng.integers(0, 9, 2, "uint32"),
        np.array([], "float32"),
    ]


def _save(folder, *steps, keep=5):
    saved = Checkpoints(folder, keep)
    for step in steps:
        saved.save(step, _arrays(step), {"losses": [0.5, step]})
    return saved


def _check(checkpoint, step):
    assert checkpoint.step == step
    assert checkpoint.info == {"losses": [0.5, step]}
    for found, expected in zip(checkpoint.arrays, _arrays(step), strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


def test_newest_checkpoint_is_restored(tmp_path):
    saved = _save(tmp_path / "new", 9, 10, 11)
    _check(saved.load(), 11)
    assert Checkpoints(tmp_path / "empty").load() is None
    assert saved.newest_step() == 11
    assert Checkpoints(tmp_path / "empty").newest_step() == 0


def test_read_only_checkpoints_write_nothing(tmp_path):
    saved = Checkpoints(tmp_path / "new", is_read_only=True)
    saved.save(1, _arrays(1), {})
    assert not (tmp_path / "new").exists()
    _save(tmp_path, 2)
    _check(Checkpoints(tmp_path, is_read_only=True).load(), 2)


def test_more_arrays_than_ten_keep_their_order(tmp_path):
    saved = Checkpoints(tmp_path)
    saved.save(1, [np.array(i) for i in range(120)], {})
    assert [int(x) for x in saved.load().arrays] == list(range(120))


def test_only_the_last_are_kept(tmp_path):
    saved = _save(tmp_path, 8, 9, 10, 11, keep=2)
    (tmp_path / "unfinished-step-0000000012.checkpoint").write_text("killed")
    saved.save(12, _arrays(12), {})
    names = [path.name for path in sorted(tmp_path.iterdir())]
    assert names == ["step-0000000011.checkpoint", "step-0000000012.checkpoint"]
    with pytest.raises(ValueError, match="`keep` must be a positive integer"):
        Checkpoints(tmp_path, keep=0)


@pytest.mark.parametrize("part", [0.0, 0.03, 0.5, 0.999])
def test_truncated_file_is_not_loaded(tmp_path, part):
    saved = _save(tmp_path, 1, 2)
    newest = saved.paths()[0]
    content = newest.read_bytes()
    newest.write_bytes(content[: int(part * len(content))])
    with pytest.warns(UserWarning, match=f"{newest.name} is damaged.*the one before"):
        _check(saved.load(), 1)


def test_no_flipped_bit_is_loaded(tmp_path):
    saved = _save(tmp_path, 1, 2)
    newest = saved.paths()[0]
    content = bytearray(newest.read_bytes())
    rng = np.random.default_rng(0)
    places = [0, 63, 64, len(content) - 1, *rng.integers(0, len(content), 40)]
    for place in places:
        bit = 1 << int(rng.integers(8))
        content[place] ^= bit
        newest.write_bytes(content)
        with pytest.warns(UserWarning, match="damaged"):
            _check(saved.load(), 1)
        content[place] ^= bit


def test_no_intact_checkpoint_remains(tmp_path):
    saved = _save(tmp_path, 1)
    saved.paths()[0].write_text("")
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(ValueError, match="all damaged. Delete them to start"),
    ):
        saved.load()


def test_full_disk_keeps_the_previous_checkpoint(tmp_path):
    # A limit on the size of files in a separate process acts like a full disk.
    _save(tmp_path, 1)
    program = f"""
import numpy as np
from keras_perceiver.training.checkpoints import Checkpoints
try:
    Checkpoints({str(tmp_path)!r}).save(2, [np.zeros(100_000)], {{}})
except OSError as error:
    print(error)
"""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error instead
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "KERAS_BACKEND": "torch", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=limit,
    )
    assert "step-0000000002.checkpoint' could not be written: File" in result.stdout
    assert "Make room and resume: the run continues from step 1." in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000000001.checkpoint"]
    _check(Checkpoints(tmp_path).load(), 1)


def test_kill_while_writing_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    saved = _save(tmp_path, 1)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(_files.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        saved.save(2, _arrays(2), {})
    _check(saved.load(), 1)


def test_pickles_are_not_loaded(tmp_path, monkeypatch):
    saved = Checkpoints(tmp_path)
    saved.save(1, [np.array([{"a": 1}], dtype=object)], {})
    with pytest.raises(ValueError, match="allow_pickle=False"):
        saved.load()


def test_error_of_the_system_is_named(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.np, "savez", full)
    match = "step-0000000003.*not be written: No space left.*from the beginning"
    with pytest.raises(OSError, match=match):
        Checkpoints(tmp_path).save(3, _arrays(3), {})
    assert not list(tmp_path.iterdir())


def test_renamed_checkpoint_is_not_used(tmp_path):
    saved = _save(tmp_path, 20, 60)
    (tmp_path / "step-0000000020.checkpoint").rename(
        tmp_path / "step-0000009999.checkpoint"
    )
    with pytest.warns(UserWarning, match="9999.*another step than its content, 20"):
        _check(saved.load(), 60)


def test_files_with_other_names_are_ignored(tmp_path):
    saved = _save(tmp_path, 7)
    for name in ("step-x.checkpoint", "step-9.checkpoint.bak", "step--8.checkpoint"):
        (tmp_path / name).write_text("notes")
    (tmp_path / "step-0000000008.checkpoint").mkdir()
    assert saved.newest_step() == 7
    _check(saved.load(), 7)
