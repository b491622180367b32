import concurrent.futures
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keras_perceiver import _files, _locks

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
    with pytest.raises(FileExistsError, match="1', which another process has just"):
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


# The name of the command keeps the package from importing Keras.
_KILLED = """
import os, signal, sys
from pathlib import Path
sys.argv[0] = "keras-perceiver"
from keras_perceiver import _files
with _files.unfinished_folder(Path(sys.argv[1])) as work:
    (work / "half").write_text("half a model")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_next_export_removes_files_of_a_killed_one(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", _KILLED, tmp_path],
        cwd=Path(__file__).parents[1],
        check=False,
    )
    assert result.returncode == -signal.SIGKILL
    (left_behind,) = tmp_path.iterdir()
    assert (left_behind / "half").exists()
    assert left_behind.name.startswith(".")
    # A running process has a lock on its folder.
    at_work = tmp_path / ".unfinished-other"
    at_work.mkdir()
    lock = os.open(at_work / _locks.NAME, os.O_RDWR | os.O_CREAT)
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


def test_several_unfinished_folders_of_one_process(tmp_path):
    with (
        _files.unfinished_folder(tmp_path) as outer,
        _files.unfinished_folder(tmp_path) as inner,
    ):
        assert outer.exists()
        assert inner.exists()
        assert outer != inner
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "Can't write data (file write failed: errno = 28)"),
        OSError(27, "File too large"),
        # Similar to errors of TensorFlow and h5py.
        RuntimeError("save/variables.tempstate; No space left on device [Op:Save]"),
    ],
)
def test_disk_errors_name_the_file_and_the_fix(tmp_path, error):
    path = tmp_path / "model.keras"
    path.write_text("before")

    def full(unfinished):
        unfinished.write_text("half")
        raise error

    with pytest.raises(OSError, match="model.keras' could not be written: ") as caught:
        _files.replace_file(path, full)
    assert os.strerror(getattr(error, "errno", None) or 28) in str(caught.value)
    assert str(caught.value).endswith("Make room, or choose another folder.")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_are_not_changed(tmp_path):
    error = ValueError("a fault of the program")

    def fail(unfinished):
        raise error

    with pytest.raises(ValueError, match="a fault of the program") as caught:
        _files.replace_file(tmp_path / "a", fail)
    assert caught.value is error
    with pytest.raises(FileNotFoundError):
        _files.replace_file(tmp_path / "none" / "a", lambda path: path.write_text("a"))


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\x00\xff\xfe", b"{'a': 1}"])
def test_damaged_json(tmp_path, content):
    path = tmp_path / "metrics.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="metrics.json must be a JSON file"):
        _files.read_json(path)


def test_numbered_folders_of_parallel_runs(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        made = list(pool.map(_files.new_numbered_folder, [tmp_path / "runs"] * 40))
    assert sorted(int(path.name) for path in made) == list(range(1, 41))


def test_file_hash(tmp_path):
    (tmp_path / "a").write_text("abc")
    # FIPS 180-2, appendix B.1.
    assert _files.file_hash(tmp_path / "a") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
