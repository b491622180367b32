import os
import signal
import threading

import pytest

from keras_perceiver._locks import locked
from tests.holder import holding

pytestmark = pytest.mark.one_backend


def test_error_names_the_process_that_holds_the_lock(tmp_path):
    path, what = tmp_path / ".lock", "The run folder 'a'"
    host = os.uname().nodename
    with holding(path) as process:
        match = (
            "^The run folder 'a' must be used by one process at a time. Received: process "
            rf"{process.pid} on {host} since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d uses it. Wait"
        )
        with pytest.raises(BlockingIOError, match=match), locked(path, what):
            pass
    assert list(tmp_path.iterdir()) == []
    with locked(path, what) as is_locked:
        assert is_locked


def test_killed_process_releases_its_lock(tmp_path):
    path = tmp_path / ".lock"
    with holding(path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert path.exists()
        with locked(path, "The folder"):
            assert str(os.getpid()) in path.read_text()
    assert list(tmp_path.iterdir()) == []


def test_reentrant_lock(tmp_path):
    path = tmp_path / ".lock"
    with locked(path, "The folder"):
        with locked(tmp_path / "." / ".lock", "The folder"):
            pass
        assert path.exists()
        with (
            pytest.raises(BlockingIOError, match="already in use by this process"),
            locked(path, "The folder", is_reentrant=False),
        ):
            pass
        assert path.exists()
    assert not path.exists()


def test_threads_of_a_process_share_a_lock(tmp_path):
    """No thread is rejected, and the last one removes the file."""
    path, errors = tmp_path / ".lock", []

    def use():
        try:
            for _ in range(50):
                with locked(path, "The folder"):
                    assert path.exists()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert not path.exists()
