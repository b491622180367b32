"""Examples in folders, and files that are ignored."""

import os

import numpy as np
import pytest

from keras_perceiver import ImagePreprocessor, PointCloudPreprocessor
from keras_perceiver.data import read_folder
from tests.data.files import write_array, write_bytes, write_image

pytestmark = pytest.mark.one_backend

POINTS = PointCloudPreprocessor(3)
# The same name in the forms of Linux and macOS.
NFC, NFD = "caf\u00e9", "cafe\u0301"


def _points(path):
    return write_array(path, np.eye(3))


def _read(folder, preprocessor=POINTS, **options):
    return read_folder(folder, preprocessor, 9, shuffle=False, **options)


def test_other_files_are_counted(tmp_path):
    for name in ("a/0.png", "a/1.webp", "a/sub/3.png", "b/0.PNG"):
        write_image(tmp_path / name)
    for name in ("a/2.psd", "a/3.psd", "a/LICENSE", "labels.csv"):
        write_bytes(tmp_path / name, b"")
    (tmp_path / "a" / "1.webp").write_bytes((tmp_path / "a" / "0.png").read_bytes())
    for name in (".DS_Store", "a/._0.png", "a/Thumbs.db", "__MACOSX/a/._0.png"):
        write_bytes(tmp_path / name, b"")
    with pytest.warns(UserWarning, match="Ignored in the data folder: ") as warned:
        read = _read(tmp_path, ImagePreprocessor((6, 8, 3)))
    assert len(read.paths) == 3
    assert read.class_names == ("a", "b")
    assert read.skipped == ()
    found = {path.relative_to(tmp_path).as_posix(): kind for path, kind in read.ignored}
    assert found == {
        **{"a/2.psd": "with extension '.psd'", "a/3.psd": "with extension '.psd'"},
        **{
            "a/LICENSE": "without an extension",
            "a/sub": "folder inside a class folder",
        },
        **{"a/Thumbs.db": "of the operating system"},
        **{"__MACOSX": "of the operating system"},
        **{"labels.csv": "file outside the class folders"},
        **{".DS_Store": "hidden", "a/._0.png": "hidden"},
    }
    text = str(warned[0].message)
    for count in (
        "with extension '.psd' (2)",
        "of the operating system (2)",
        "folder inside a class folder (1)",
        "file outside the class folders (1)",
    ):
        assert count in text
    assert "hidden" not in text
    for part in read.split(0.4):
        assert part.ignored == read.ignored


@pytest.mark.parametrize(
    "name",
    ["@eaDir", "__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found"],
)
def test_folders_of_operating_systems_are_not_classes(name, tmp_path):
    _points(tmp_path / "cat" / "0.npy")
    _points(tmp_path / name / "0.npy")
    with pytest.warns(UserWarning, match=r"of the operating system \(1\)"):
        assert _read(tmp_path).class_names == ("cat",)


def test_other_files_next_to_examples_are_ignored(tmp_path):
    """Such as captions, or another modality, with the name of an example."""
    _points(tmp_path / "a" / "0.npy")
    write_image(tmp_path / "a" / "0.png")
    both = {"points": POINTS, "image": ImagePreprocessor((6, 8, 3))}
    assert _read(tmp_path, both).ignored == ()
    (found,) = _read(tmp_path).ignored
    assert found == (tmp_path / "a" / "0.png", "with the name of an example")
    write_image(tmp_path / "a" / "1.png")
    with pytest.warns(UserWarning, match=r"data folder: with extension '.png' \(1\). "):
        _read(tmp_path)


def test_folder_at_another_level(tmp_path):
    for part in ("train", "test"):
        _points(tmp_path / "data" / part / "cat" / "0.npy")
    for options in ({}, {"skip_bad_files": True}):
        with pytest.raises(ValueError, match=r"one level deeper.*0.npy'. Pass '.*/te"):
            _read(tmp_path / "data", **options)
    with pytest.raises(ValueError, match="with files in it.*'0.npy'. Pass the parent"):
        _read(tmp_path / "data" / "train" / "cat")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="without a subfolder. Make a folder"):
        _read(tmp_path / "empty")


def test_names_that_look_the_same_are_the_same(tmp_path):
    for name in (NFC, NFD):
        _points(tmp_path / "one" / name / "0.npy")
    read = _read(tmp_path / "one")
    assert read.class_names == (NFC,)
    assert len(read.paths) == 2
    for name in ([NFC], [NFD]):
        assert _read(tmp_path / "one", class_names=name).class_names == (NFC,)
    with pytest.raises(ValueError, match="unique.*more than once"):
        _read(tmp_path / "one", class_names=[NFC, NFD])
    # Pairs stay together.
    _points(tmp_path / "two" / NFC / f"{NFD}.npy")
    write_image(tmp_path / "two" / NFD / f"{NFC}.png")
    both = {"points": POINTS, "image": ImagePreprocessor((6, 8, 3))}
    read = _read(tmp_path / "two", both)
    assert [set(paths) for paths in read.paths] == [{"points", "image"}]


def test_a_class_name_must_be_text(tmp_path):
    _points(tmp_path / os.fsdecode(b"caf\xe9") / "0.npy")
    with pytest.raises(ValueError, match=r"text in UTF-8.*'caf\\udce9'. Rename"):
        _read(tmp_path)


@pytest.fixture
def classes(tmp_path):
    for name in "abc":
        _points(tmp_path / name / "0.npy")
    return tmp_path


@pytest.mark.parametrize(
    "names", [{"a": 2, "b": 0, "c": 1}, {"a", "b", "c"}, "abc", b"abc", 3]
)
def test_class_names_have_an_order(classes, names):
    with pytest.raises(TypeError, match="in the order of the labels.*Pass a list"):
        _read(classes, class_names=names)


def test_class_names_are_different_strings(classes):
    with pytest.raises(TypeError, match="must be strings. Received: 0 of type int"):
        _read(classes, class_names=[0, 1, 2])
    with pytest.raises(ValueError, match=r"\['a'\] more than once"):
        _read(classes, class_names=["a", "b", "c", "a"])
    for names in (["c", "b", "a"], ("c", "b", "a"), np.array(["c", "b", "a"])):
        read = _read(classes, class_names=names)
        assert read.class_names == ("c", "b", "a")
        assert {type(name) for name in read.class_names} == {str}
        labels = next(iter(read.dataset))[1]
        assert [path.parent.name for path in read.paths] == ["c", "b", "a"]
        np.testing.assert_array_equal(labels, [0, 1, 2])


def test_names_with_dots(tmp_path):
    for i in range(6):
        _points(tmp_path / "dog" / f"rec.{i}.npy")
        write_image(tmp_path / "dog" / f"rec.{i}.png")
    both = {"points": POINTS, "image": ImagePreprocessor((6, 8, 3))}
    alone = {name: {name: each} for name, each in both.items()}
    for preprocessor in (both, *alone.values()):
        seen = []
        read = _read(tmp_path, preprocessor)
        parts = read.split(0.3, group=lambda stem: seen.append(stem) or stem)  # noqa: B023
        assert seen == [f"rec.{i}" for i in range(6)]
        assert sum(len(part.paths) for part in parts) == 6


def test_only_regular_files_are_examples(tmp_path):
    _points(tmp_path / "a" / "0.npy")
    os.mkfifo(tmp_path / "a" / "1.npy")
    (tmp_path / "a" / "2.npy").symlink_to(tmp_path / "nothing")
    (tmp_path / "a" / "3.npy").symlink_to(tmp_path / "a" / "0.npy")
    with pytest.raises(ValueError, match=r"regular files.*in .*1.npy"):
        _read(tmp_path)
    with pytest.warns(UserWarning, match="Bad files skipped: 2, examples read: 2"):
        read = _read(tmp_path, skip_bad_files=True)
    assert [path.name for path, _ in read.skipped] == ["1.npy", "2.npy"]
    assert all(str(path) in reason for path, reason in read.skipped)
