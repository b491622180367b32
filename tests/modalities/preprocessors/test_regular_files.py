import os
import socket

import numpy as np
import pytest

from keras_perceiver import PointCloudPreprocessor
from keras_perceiver.modalities.preprocessors.regular_files import read_bytes

pytestmark = pytest.mark.one_backend


def test_bytes_of_files_and_links(tmp_path):
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for name in "ab":
        assert read_bytes(tmp_path / name, 3) == b"123"
    with pytest.raises(ValueError, match="`max_bytes=2` bytes.*3 bytes. Reduce it"):
        read_bytes(tmp_path / "a", 2)


def test_a_sparse_file_is_not_read(tmp_path):
    with (tmp_path / "a.npy").open("wb") as file:
        file.truncate(2**40)  # a sparse file of a terabyte
    with pytest.raises(ValueError, match=r"1099511627776 bytes in .*a.npy"):
        PointCloudPreprocessor(5).read(tmp_path / "a.npy")


def test_only_regular_files_are_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # paths of sockets must be short
    os.mkfifo("pipe")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for name in ("pipe", "folder", "socket", "/dev/zero"):
            with pytest.raises(ValueError, match="must be regular files"):
                read_bytes(name, 2**31)


def test_missing_files_are_of_their_own_class(tmp_path):
    (tmp_path / "a.npy").symlink_to(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"a.npy"):
        PointCloudPreprocessor(5).read(tmp_path / "a.npy")
    np.save(tmp_path / "nothing", np.ones((5, 3)))
    (tmp_path / "nothing.npy").rename(tmp_path / "nothing")
    assert PointCloudPreprocessor(5).read(tmp_path / "a.npy").shape == (5, 3)
