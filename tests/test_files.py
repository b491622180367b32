import fcntl
import os
import signal
import subprocess
import sys

import pytest

from keras_perceiver import _files

pytestmark = pytest.mark.one_backend


def _version(path, text):
    path.mkdir(parents=True)
    (path / "saved_model.pb").write_text(text)
    return path


def test_export_that_is_overtaken_takes_the_next_number(tmp_path):
    folder = tmp_path / "exports"
    for name in ("1", "2"):
        _version(folder / name, name)
    mine = _version(tmp_path / "mine", "mine")
    with pytest.raises(OSError, match="not empty"):
        _files.publish_folder(mine, folder, number=1, is_chosen=True)
    published = _files.publish_folder(mine, folder, number=1, is_chosen=False)
    assert published == folder / "3"
    assert (folder / "3" / "saved_model.pb").read_text() == "mine"
    assert (folder / "1" / "saved_model.pb").read_text() == "1"


def test_everything_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    mine = _version(tmp_path / "mine", "mine")
    (mine / "variables").mkdir()
    (mine / "variables" / "data").write_text("numbers")
    synchronized = []
    real = os.fsync

    def fsync(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        synchronized.append((path, (tmp_path / "1").exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    _files.publish_folder(mine, tmp_path, number=1, is_chosen=True)
    names = ("variables/data", "variables", "saved_model.pb", "")
    before = {path for path, is_published in synchronized if not is_published}
    assert before == {str(mine / name) for name in names}
    assert synchronized[-1] == (str(tmp_path), True)


def test_full_disk_publishes_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(OSError, match="No space left"),
        _files.unfinished_folder(tmp_path) as work,
    ):
        _files.publish_folder(_version(work / "mine", ""), tmp_path, 1, is_chosen=True)
    assert list(tmp_path.iterdir()) == []


# Without importing the package, which takes long.
_KILLED = """
import os, runpy, signal, sys
from pathlib import Path
files = runpy.run_path(sys.argv[2])
with files["unfinished_folder"](Path(sys.argv[1])) as work:
    (work / "half").write_text("half a model")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_next_export_removes_files_of_a_killed_one(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", _KILLED, tmp_path, _files.__file__], check=False
    )
    assert result.returncode == -signal.SIGKILL
    (left_behind,) = tmp_path.iterdir()
    assert (left_behind / "half").exists()
    assert left_behind.name.startswith(".")
    # A running process has a lock on its folder.
    at_work = tmp_path / ".unfinished-other"
    at_work.mkdir()
    lock = os.open(at_work, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with _files.unfinished_folder(tmp_path) as work:
        assert {p.name for p in tmp_path.iterdir()} == {work.name, at_work.name}
    os.close(lock)
    assert _files.next_number(tmp_path) == 1


def test_settings_of_the_user_stay(tmp_path):
    path = tmp_path / "models.config"
    _files.write_if_missing(path, "first")
    _files.write_if_missing(path, "second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]
