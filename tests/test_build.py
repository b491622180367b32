"""Wheel and sdist: how they are built, their files and metadata, and an installation."""

import email
import os
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import keras
import pytest

import keras_perceiver
from keras_perceiver import recipes

ROOT = Path(__file__).parents[1]

pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.one_backend]


def _sources(folder="."):
    options = ["--cached", "--others", "--exclude-standard"]
    return set(_run("git", "ls-files", *options, folder, cwd=ROOT).split())


def _run(*command, **options):
    result = subprocess.run(command, capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Returns the sdist, the wheel, and the wheel that is built from the sdist."""
    folder = tmp_path_factory.mktemp("build")
    _run(sys.executable, "-m", "hatchling", "build", "-d", str(folder), cwd=ROOT)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    options = ["--no-deps", "--no-index", "--no-build-isolation", "-q"]
    again = folder / "again"
    pip = [sys.executable, "-m", "pip", "wheel", *options, "-w", str(again)]
    _run(*pip, str(sdist), cwd=folder)
    return {"sdist": sdist, "wheel": wheel, "wheel of sdist": again / wheel.name}


def _names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_has_the_package_only(built):
    names = _names(built["wheel"])
    info = f"keras_perceiver-{keras_perceiver.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"keras_perceiver", info}
    package = {name for name in names if not name.startswith(info)}
    assert package == _sources("keras_perceiver")
    assert "keras_perceiver/py.typed" in names
    assert f"{info}/licenses/LICENSE" in names
    assert _names(built["wheel of sdist"]) == names


def test_sdist_has_the_repository(built):
    with tarfile.open(built["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names - {"PKG-INFO"} == _sources()


def test_metadata(built):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    info = f"keras_perceiver-{keras_perceiver.__version__}.dist-info"
    with zipfile.ZipFile(built["wheel"]) as archive:
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
    assert metadata["Name"] == "keras_perceiver"
    assert metadata["Version"] == keras_perceiver.__version__
    assert metadata["Summary"] == project["description"]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["License-File"] == "LICENSE"
    assert metadata["Requires-Python"] == project["requires-python"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload() == (ROOT / "README.md").read_text()
    urls = dict(url.split(", ") for url in metadata.get_all("Project-URL"))
    assert urls == project["urls"]
    assert all(url.startswith("https://") for url in urls.values())
    assert sorted(metadata.get_all("Classifier")) == sorted(project["classifiers"])
    extras = {name.replace("_", "-") for name in project["optional-dependencies"]}
    assert set(metadata.get_all("Provides-Extra")) == extras


@pytest.mark.parametrize("name", ["wheel", "wheel of sdist"])
def test_installs_in_an_empty_environment(built, name, tmp_path):
    venv.create(tmp_path / "env", with_pip=False)
    scripts = tmp_path / "env" / "bin"
    python = str(scripts / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q"]
    _run(*pip, "--no-deps", "--no-index", str(built[name]))
    # Dependencies are those of the tests, without a download.
    (site,) = (tmp_path / "env" / "lib").glob("*/site-packages")
    (site / "dependencies.pth").write_text(f"{Path(keras.__file__).parents[1]}\n")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    options = {"cwd": tmp_path, "env": environment}
    code = "import keras_perceiver as k; print(k.__version__, k.__file__, k.Perceiver)"
    version, file, _ = _run(python, "-c", code, **options).split(maxsplit=2)
    assert version == keras_perceiver.__version__
    assert Path(file).parent.parent == site
    listed = _run(python, "-m", "keras_perceiver", "recipes", **options)
    assert all(name in listed for name in recipes.names())
    assert _run(str(scripts / "keras-perceiver"), "recipes", **options) == listed
