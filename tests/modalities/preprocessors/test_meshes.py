"""OFF and PLY files against trimesh, and files that are damaged."""

import io
import struct

import numpy as np
import pytest
import trimesh

from keras_perceiver.modalities.preprocessors.meshes import (
    Mesh,
    read_off,
    read_ply,
    sample_surface,
)

pytestmark = pytest.mark.one_backend

VERTICES = "0 0 0\n1 0 0\n0 1 0\n0 0 1\n"
FACES = "3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n"
OFF = f"OFF\n4 4 0\n{VERTICES}{FACES}"
PLY = f"""ply
format ascii 1.0
element vertex 4
property float x
property float y
property float z
element face 4
property list uchar int vertex_indices
end_header
{VERTICES}{FACES}"""


def _read(content, reader=None):
    content = content if isinstance(content, bytes) else content.encode()
    reader = reader or (read_ply if content[:3] == b"ply" else read_off)
    return reader(content, lambda count: None)


def _ply(faces, order="<", properties="", after=b""):
    """Returns a binary PLY with a number after each face."""
    kind = {"<": "little", ">": "big"}[order]
    vertices = np.fromstring(VERTICES, sep=" ").astype(f"{order}f4")
    header = PLY[: PLY.index("end_header")]
    header = header.replace("ascii", f"binary_{kind}_endian")
    header = header.replace("face 4", f"face {len(faces)}")
    rows = [struct.pack(f"{order}B{len(f)}if", len(f), *f, 0.5) for f in faces]
    return b"".join(
        [
            f"{header}property float quality\n{properties}end_header\n".encode(),
            vertices.tobytes(),
            *rows,
            after,
        ]
    )


@pytest.mark.parametrize("kind", ["off", "ply", "ascii", "normals"])
def test_meshes_are_those_of_trimesh(kind):
    mesh = trimesh.creation.icosphere(subdivisions=1)
    options = {"off": {}, "ascii": {"encoding": "ascii"}}.get(kind, {})
    suffix = "off" if kind == "off" else "ply"
    if suffix == "ply":
        options["vertex_normal"] = kind == "normals"
    content = mesh.export(file_type=suffix, **options)
    content = content.encode() if isinstance(content, str) else content
    expected = trimesh.load(io.BytesIO(content), file_type=suffix, process=False)
    read = _read(content)
    assert read.feature_names == (("nx", "ny", "nz") if kind == "normals" else ())
    np.testing.assert_allclose(read.vertices[:, :3], expected.vertices, atol=1e-7)
    np.testing.assert_array_equal(read.triangles, expected.faces)
    points, _ = trimesh.sample.sample_surface(expected, 50, seed=3)
    np.testing.assert_allclose(sample_surface(read, 50, 3), points, atol=1e-7)


def _commented(text):
    return "# first\n" + text.replace("\n", " # behind\n\n# alone\n")


GOOD = {
    "comments": _commented(OFF),
    "counts with a comment": OFF.replace("4 4 0", "4 4 0 # counts"),
    "counts behind the keyword": OFF.replace("OFF\n", "OFF"),
    "counts on its line": OFF.replace("OFF\n", "OFF "),
    "two counts": OFF.replace("4 4 0", "4 4"),
    "lines of Windows": OFF.replace("\n", "\r\n"),
    "a byte order mark": "\ufeff" + OFF,
    "colors of vertices": "C"
    + OFF.replace(VERTICES, VERTICES.replace("\n", " 9 9 9 255\n")),
    "colors of faces": OFF.replace("3 0 1 2", "3 0 1 2 255 0 0"),
    "comments of PLY": PLY.replace("element face", "comment end_header\nelement face"),
    "a texture": PLY.replace("element", "comment TextureFile /etc/passwd\nelement", 1),
    "PLY of Windows": PLY.replace("\n", "\r\n"),
    "PLY of old Macs": PLY.replace("\n", "\r"),
}


@pytest.mark.parametrize("content", GOOD.values(), ids=GOOD)
def test_the_same_tetrahedron(content):
    expected = _read(OFF)
    read = _read(content, read_ply if "ply" in content[:4] else read_off)
    np.testing.assert_array_equal(read.vertices, expected.vertices)
    np.testing.assert_array_equal(read.triangles, expected.triangles)


@pytest.mark.parametrize("order", ["<", ">"])
def test_binary_lists_of_several_lengths(order):
    faces = [(0, 1, 2), (0, 1, 2, 3), (), (1, 2, 3)]
    for some in (faces, faces[::-1], faces[:1], faces[3:]):
        expected = [(f[0], f[i], f[i + 1]) for f in some for i in range(1, len(f) - 1)]
        np.testing.assert_array_equal(_read(_ply(some, order)).triangles, expected)
    assert len(_read(_ply(faces, order, after=b"\n")).triangles) == 4


BAD = {
    "no faces are left": (OFF[: OFF.index(FACES)], "0 faces of 4"),
    "one face is left": (OFF[: OFF.index(FACES) + 8], "1 faces of 4"),
    "half a face is left": (OFF[:-3], "2 corners of 3"),
    "half the vertices": (OFF[: OFF.index("0 1 0")], "2 vertices of 4"),
    "more faces": (OFF.replace("4 4 0", "4 3 0"), "8 vertices and faces of 7"),
    "more vertices": (OFF.replace("4 4 0", "3 4 0"), "8 vertices and faces of 7"),
    "a lie": (OFF.replace("4 4 0", "99999999999 4 0"), "8 vertices of 99999999999"),
    "index 9": (OFF.replace("1 2 3", "1 2 9"), "corner 9 with 4 vertices"),
    "index -1": (OFF.replace("1 2 3", "1 2 -1"), "corner -1 with 4"),
    "index nan": (OFF.replace("1 2 3", "1 2 nan"), "invalid literal"),
    "index 1.5": (OFF.replace("1 2 3", "1 2 1.5"), "invalid literal"),
    "a short vertex": (OFF.replace("0 0 1", "0 0"), "invalid column"),
    "a word": (OFF.replace("0 0 1", "0 0 one"), "could not convert"),
    "other text": ("hello", "must be OFF in text.*'hello'"),
    "nothing": ("", "must be OFF in text"),
    "four dimensions": ("4" + OFF, "must be OFF in text.*'4OFF'"),
    "binary OFF": ("OFF BINARY\n\0\0\0\4", "must be OFF in text.*'BINARY'"),
    "a negative count": (OFF.replace("4 4 0", "-4 4 0"), "OFF in text.*'-4 4 0'"),
    "PLY with one face": (PLY[: PLY.index(FACES) + 8], "1 face of 4"),
    "PLY with half a face": (PLY[:-3], "2 vertex_indices of 3"),
    "PLY with more faces": (PLY.replace("face 4", "face 3"), "8 elements of 7"),
    "PLY index 9": (PLY.replace("1 2 3", "1 2 9"), "corner 9 with 4 vertices"),
    "PLY index -9": (PLY.replace("1 2 3", "1 2 -9"), "corner -9 with 4"),
    "PLY index nan": (PLY.replace("1 2 3", "1 2 nan"), "invalid literal"),
    "a long vertex": (PLY.replace("0 0 1\n", "0 0 1 5\n"), "number of columns"),
    "long vertices": (PLY.replace("property float z\n", ""), "3 numbers of a vertex"),
    "no x": (PLY.replace("float x", "float u"), "vertices with x, y and z"),
    "no vertices": (PLY.replace("vertex 4", "node 4"), "vertices with x, y and z"),
    "only a header": ("ply\n", "header from `ply` to `end_header`"),
    "no format": (PLY.replace("format ascii 1.0\n", ""), "a line `format`"),
    "format 2": (PLY.replace("ascii 1.0", "ascii 2.0"), "'format ascii 2.0'"),
    "an unknown type": (PLY.replace("float x", "half x"), "'property half x'"),
    "strips": (
        PLY.replace("element face", "element tristrips"),
        "instead of triangle strips",
    ),
    "two lists": (
        PLY.replace("vertex_indices", "a\nproperty list uchar int b").replace(
            FACES, FACES.replace("\n", " 0\n")
        ),
        r"one list of the corners.*\['a', 'b'\]",
    ),
    "binary and cut": (_ply([(0, 1, 2)] * 3)[:-3], "2 face of 3"),
    "binary of several lengths and cut": (
        _ply([(0, 1, 2, 3), (0, 1, 2)])[:-3],
        "1 face of 2",
    ),
    "binary and half the vertices": (_ply([])[:-20], "2 vertex of 4"),
    "binary and more": (_ply([(0, 1, 2)], after=b"123"), "bytes of"),
    "binary index 4": (_ply([(0, 1, 4)]), "corner 4 with 4 vertices"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_damaged_files_are_errors(content, message):
    is_ply = "ply" in str(content[:5])
    with pytest.raises(ValueError, match=message):
        _read(content, read_ply if is_ply else read_off)


def test_counts_are_checked_before_anything_is_read():
    def check(count):
        if count > 3:
            raise ValueError(f"too many: {count}")

    for content, reader in ((OFF, read_off), (PLY, read_ply)):
        with pytest.raises(ValueError, match="too many: 4"):
            reader(content.encode(), check)


def test_points_are_on_the_area():
    mesh = _read(OFF)
    points = sample_surface(mesh, 3000, 0)
    is_on_axes = np.abs(points).min(axis=1) < 1e-9
    is_on_slope = np.abs(points.sum(axis=1) - 1) < 1e-9
    assert (is_on_axes | is_on_slope).all()
    # The share of the slope is sqrt(3) of 3 + sqrt(3).
    assert is_on_slope.mean() == pytest.approx(3**0.5 / (3 + 3**0.5), abs=0.03)
    flat = Mesh(np.ones((3, 3)), np.array([[0, 1, 2]]))
    huge = Mesh(np.eye(3) * 1e200, np.array([[0, 1, 2]]))
    for bad, area in ((flat, "0.0"), (huge, "inf")):
        with pytest.raises(ValueError, match=f"must have an area.*an area of {area}"):
            sample_surface(bad, 5, 0)
