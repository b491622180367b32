import numpy as np
import pytest
import trimesh

from keras_perceiver import PointCloudPreprocessor
from tests.data.files import (
    TETRAHEDRON,
    cut,
    write_array,
    write_bytes,
    write_points,
)
from tests.modalities.preprocessors.checks import check_bad_files, check_preprocessor

pytestmark = pytest.mark.one_backend


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_points": 20, "num_features": 2, "seed": 3},
        {"num_points": 20, "use_mask": True, "use_unit_cube": False},
        {},
    ],
)
def test_contract(arguments, tmp_path):
    check_preprocessor(PointCloudPreprocessor(**arguments), tmp_path, max_length=20)


def test_points(tmp_path):
    points = write_points(tmp_path / "a.npy", 20)
    np.savetxt(tmp_path / "a.xyz", points, header="", fmt="%.9g")
    for name in ("a.npy", "a.xyz"):
        raw = PointCloudPreprocessor(use_unit_cube=False).read(tmp_path / name)
        assert raw.dtype == "float32"
        np.testing.assert_allclose(raw, points, atol=1e-6)
        scaled = PointCloudPreprocessor().read(tmp_path / name)
        np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-6)
        assert np.abs(scaled).max() == pytest.approx(1)
        # The same scale for all axes.
        ratio = (scaled[1:] - scaled[0]) / (points[1:] - points[0])
        np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-3)


def test_features_of_points_are_unchanged(tmp_path):
    points = np.random.default_rng(0).normal(5, 1, (20, 5))
    write_array(tmp_path / "a.npy", points)
    read = PointCloudPreprocessor(num_features=2).read(tmp_path / "a.npy")
    np.testing.assert_allclose(read[:, 3:], points[:, 3:], rtol=1e-6)
    np.testing.assert_allclose(read[:, :3].mean(0), 0, atol=1e-6)


def test_subsampling_of_points_depends_on_the_seed(tmp_path):
    points = write_points(tmp_path / "a.npy", 50)

    def read(seed):
        return PointCloudPreprocessor(10, use_unit_cube=False, seed=seed).read(
            tmp_path / "a.npy"
        )

    part = read(0)
    assert part.shape == (10, 3)
    assert len(np.unique(part, axis=0)) == 10
    assert (part[:, None] == points[None]).all(-1).any(1).all()
    np.testing.assert_array_equal(part, read(0))
    assert (part != read(1)).any()


def test_equal_points_stay_in_one_place(tmp_path):
    write_array(tmp_path / "a.npy", np.ones((4, 3)))
    np.testing.assert_array_equal(PointCloudPreprocessor().read(tmp_path / "a.npy"), 0)


@pytest.mark.parametrize("suffix", ["off", "ply"])
def test_meshes_are_sampled_on_their_surface(tmp_path, suffix):
    path = tmp_path / "a.off"
    path.write_text(TETRAHEDRON)
    if suffix == "ply":
        path = tmp_path / "a.ply"
        trimesh.load(tmp_path / "a.off").export(path)

    def read(seed=0, **options):
        return PointCloudPreprocessor(400, seed=seed, **options).read(path)

    points = read(use_unit_cube=False)
    assert points.shape == (400, 3)
    # On one of the three faces at 0, or on x + y + z = 2.
    on_axes = np.abs(points).min(1) < 1e-6
    on_slope = np.abs(points.sum(1) - 2) < 1e-5
    assert (on_axes | on_slope).all()
    # In proportion to the area: 2 for each face at 0, and 3.46 for the slope.
    assert on_slope.mean() == pytest.approx(3.46 / 9.46, abs=0.08)
    np.testing.assert_array_equal(points, read(use_unit_cube=False))
    assert (read(1) != read(0)).any()


def test_mesh_without_faces_gives_its_vertices(tmp_path):
    points = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    trimesh.PointCloud(points).export(tmp_path / "a.ply")
    read = PointCloudPreprocessor(use_unit_cube=False).read(tmp_path / "a.ply")
    np.testing.assert_allclose(read, points, atol=1e-6)


def _ply(properties, values):
    names = "".join(f"property float {name}\n" for name in ("x", "y", "z", *properties))
    return f"ply\nformat ascii 1.0\nelement vertex 2\n{names}end_header\n{values}"


def test_properties_of_vertices_are_features(tmp_path):
    path = tmp_path / "a.ply"
    path.write_text(_ply(("nx", "ny"), "1 2 3 4 5\n6 7 8 9 0\n"))
    expected = [[1, 2, 3, 4, 5], [6, 7, 8, 9, 0]]
    for num_features in (0, 2):
        read = PointCloudPreprocessor(
            num_features=num_features, use_unit_cube=False
        ).read(path)
        np.testing.assert_array_equal(read, np.array(expected)[:, : 3 + num_features])


def test_comments_in_text(tmp_path):
    path = tmp_path / "a.xyz"
    path.write_text("\ufeff# x y z\n1 2 3 # first\n\n4 5 6\r\n", newline="")
    read = PointCloudPreprocessor(use_unit_cube=False).read(path)
    np.testing.assert_array_equal(read, [[1, 2, 3], [4, 5, 6]])


def _truncated_npy(path):
    write_points(path)
    cut(path, 5)


def _pickle(path):
    write_array(path, np.array([{}, 1], dtype=object))


def _not_finite(value):
    def write(path):
        points = np.ones((5, 3))
        points[2, 1] = value
        write_array(path, points)

    return write


def _text(content):
    return lambda path: write_bytes(path, content.encode())


BAD_FILES = [
    (PointCloudPreprocessor(), "a.npy", _truncated_npy, "the array of its header"),
    (PointCloudPreprocessor(), "a.npy", _pickle, "array of numbers"),
    (
        PointCloudPreprocessor(),
        "a.npy",
        lambda path: write_array(path, np.ones((4, 3), "complex64")),
        "array of numbers.*complex64",
    ),
    (
        PointCloudPreprocessor(),
        "a.npy",
        lambda path: write_points(path, 0),
        "length 0",
    ),
    (PointCloudPreprocessor(), "a.npy", _not_finite(np.nan), "must be finite.*NaN"),
    (PointCloudPreprocessor(), "a.npy", _not_finite(np.inf), "must be finite"),
    (
        PointCloudPreprocessor(use_unit_cube=False),
        "a.npy",
        _not_finite(1e300),
        "must be finite",
    ),
    (
        PointCloudPreprocessor(num_features=1),
        "a.npy",
        write_points,
        r"shape `\(points, 4\)`.*shape \(20, 3\).*Set `num_features=0`",
    ),
    (
        PointCloudPreprocessor(num_features=3),
        "a.ply",
        _text(_ply(("nx", "ny"), "1 2 3 4 5\n6 7 8 9 0\n")),
        r"shape `\(points, 6\)`.*shape \(2, 5\).*Set `num_features=2`",
    ),
    (
        PointCloudPreprocessor(),
        "a.npy",
        lambda path: write_array(path, np.ones((3, 20))),
        r"shape \(3, 20\).*Transpose the array",
    ),
    (
        PointCloudPreprocessor(),
        "a.npy",
        lambda path: write_array(path, np.ones((20, 2))),
        r"shape \(20, 2\).*Convert the file",
    ),
    (
        PointCloudPreprocessor(10, num_features=1),
        "a.off",
        _text(TETRAHEDRON),
        "sampled on a mesh have no features.*num_features=1.*num_features=0",
    ),
    *[
        (
            PointCloudPreprocessor(5, max_points=3),
            f"a.{suffix}",
            write,
            "at most `max_points=3` points.*(4|20).*Reduce it",
        )
        for suffix, write in (
            ("npy", write_points),
            ("xyz", _text("1 2 3\n" * 4)),
            ("off", _text(TETRAHEDRON)),
        )
    ],
    (
        PointCloudPreprocessor(10),
        "a.off",
        _text("OFF\n3 1 0\n0 0 0\n1 1 1\n2 2 2\n3 0 1 2\n"),
        "must have an area.*area of 0.0.*Remove the faces",
    ),
    (
        PointCloudPreprocessor(21),
        "a.npy",
        write_points,
        "shorter than 21.*length 20",
    ),
    (PointCloudPreprocessor(), "a.xyz", _text(""), "length 0"),
    (
        PointCloudPreprocessor(),
        "a.xyz",
        _text("# a comment\n1 2 3\n\n4 5\n"),
        "equally many numbers.*2 in line 4, after 3 in the first one",
    ),
    (
        PointCloudPreprocessor(),
        "a.xyz",
        _text("1 2 3\n4 five 6\n"),
        "must be numbers, separated by spaces.*'five' in line 2",
    ),
    (
        PointCloudPreprocessor(),
        "a.xyz",
        _text("1 2\n3 4\n"),
        r"`\(points, 3\)`: three coordinates. Received: shape \(2, 2\)",
    ),
    (PointCloudPreprocessor(), "a.xyz", _text("1 2 nan\n"), "must be finite"),
    (PointCloudPreprocessor(10), "a.off", _text("hello"), "must be OFF in text"),
    (PointCloudPreprocessor(10), "a.off", _text("OFF\n0 0 0\n"), "length 0"),
    (
        PointCloudPreprocessor(10),
        "a.off",
        _text(TETRAHEDRON.replace("0 2 0", "0 nan 0")),
        "must be finite",
    ),
    (
        PointCloudPreprocessor(),
        "a.off",
        _text(TETRAHEDRON),
        "num_points=None.*Set `num_points`",
    ),
    (PointCloudPreprocessor(10), "a.ply", _text("ply\n"), "header from `ply`"),
]


def test_bad_files_are_named(tmp_path, subtests):
    check_bad_files(BAD_FILES, tmp_path, subtests)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"use_mask": False}, "need a mask.*Set `num_points`"),
        ({"num_features": -1}, "`num_features` must not be negative"),
        ({"max_points": 0}, "`max_points` must be a positive"),
        ({"num_points": 0}, "`num_points` must be a positive"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        PointCloudPreprocessor(**arguments)
