import numpy as np
import pytest

from keras_perceiver import VideoPreprocessor
from tests.data.files import write_array, write_video
from tests.modalities.preprocessors.checks import check_bad_files, check_preprocessor

pytestmark = pytest.mark.one_backend


def test_contract(tmp_path):
    preprocessor = VideoPreprocessor((3, 4, 6, 2), value_range=(0, 255))
    check_preprocessor(preprocessor, tmp_path)


def test_frames_are_scaled_to_the_value_range(tmp_path):
    frames = write_video(tmp_path / "a.npy", (3, 4, 6, 2))
    video = VideoPreprocessor((3, 4, 6, 2)).read(tmp_path / "a.npy")
    assert video.dtype == "float32"
    np.testing.assert_allclose(video, frames / 127.5 - 1, atol=1e-6)
    video = VideoPreprocessor((3, 4, 6, 2), (0, 1)).read(tmp_path / "a.npy")
    np.testing.assert_allclose(video, frames / 255, atol=1e-6)


BAD_FILES = [
    (
        VideoPreprocessor((3, 4, 6, 2)),
        "a.npy",
        lambda path: write_video(path, (3, 6, 4, 2)),
        r"shape \(3, 4, 6, 2\).*shape \(3, 6, 4, 2\).*Convert",
    ),
    (
        VideoPreprocessor((1, 1, 20, 3)),
        "a.npy",
        lambda path: write_array(path, np.ones((1, 1, 20, 3), "float32")),
        "uint8.*float32",
    ),
]


def test_bad_files_are_named(tmp_path, subtests):
    check_bad_files(BAD_FILES, tmp_path, subtests)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"\(frames, height, width, channels\)"):
        VideoPreprocessor((8, 8, 3))
