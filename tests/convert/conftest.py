"""Fixtures of the tests of conversion."""

import pytest

from tests.convert.small import write_folder


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder in Hugging Face's layout with random weights."""
    folder = tmp_path_factory.mktemp("small") / "model"
    write_folder(folder)
    return folder
