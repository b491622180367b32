import pytest

from keras_perceiver.serving import versions

pytestmark = pytest.mark.one_backend


@pytest.mark.parametrize("version", [0, -1, "1", 1.5])
def test_bad_versions(version, tmp_path):
    with pytest.raises(ValueError, match="`version` must be a positive integer"):
        versions.check_version(tmp_path, version)


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        PermissionError, match="`folder` must be a writable folder.*Choose another"
    ):
        versions.check_version(tmp_path / "file" / "exports", 1)
