"""Reading of OFF and PLY files, and sampling of points on the surface of meshes.

The content of a file is compared with the counts in its header, and its indices with the
number of vertices, so that truncated or damaged files are errors.
"""

import re
from typing import NamedTuple

import numpy as np

from keras_perceiver.modalities.preprocessors.file_rules import FileRule

_IS_COUNTED = FileRule(
    "A mesh must match the counts in its header.", "{} {} of {}", "Repair the file"
)
_IS_INDEX = FileRule(
    "The corners of faces must be indices of vertices, from 0.",
    "corner {} with {} vertices",
    "Repair the file",
)
_IS_OFF = FileRule("The file must be OFF in text.", "{!r}", "Convert the file")
_HAS_AREA = FileRule(
    "Meshes must have an area to sample.", "an area of {}", "Remove the faces"
)
_OFF = re.compile(r"(ST)?C?N?OFF")
_PLY_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4"},
    **{"uint": "u4", "float": "f4", "double": "f8", "int8": "i1", "uint8": "u1"},
    **{"int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4", "int64": "i8"},
    **{"uint64": "u8", "float32": "f4", "float64": "f8"},
}


class Mesh(NamedTuple):
    """A mesh, or a point cloud if it has no triangles."""

    vertices: np.ndarray  # (vertices, 3 + features), float64
    triangles: np.ndarray  # (triangles, 3), integers
    feature_names: tuple = ()  # of the columns of vertices after x, y and z


def read_off(content, check_size):
    """Returns the mesh in the bytes of an OFF file, without colors and normals.

    Args:
        content: Bytes.
        check_size: Callable that takes the number of vertices or faces, before they are
            read, and raises an error if it is invalid.
    """
    lines = content.decode("utf-8-sig", errors="replace").splitlines()
    lines = (line.partition("#")[0].strip() for line in lines)
    lines = [line for line in lines if line] or [""]
    keyword = _OFF.match(lines[0])
    _IS_OFF.check(keyword, lines[0][:20])
    # Some programs write the counts right after the keyword.
    lines[0] = lines[0][keyword.end() :].strip()
    lines = lines if lines[0] else lines[1:] or [""]
    header = lines.pop(0)
    counts = header.split()[:2]
    _IS_OFF.check(len(counts) == 2 and "".join(counts).isdecimal(), header[:20])
    num_vertices, num_faces = map(int, counts)
    check_size(num_vertices)
    check_size(num_faces)
    faces = lines[num_vertices : num_vertices + num_faces]
    for name, found, count in (
        ("vertices", min(len(lines), num_vertices), num_vertices),
        ("faces", len(faces), num_faces),
        ("vertices and faces", len(lines), num_vertices + num_faces),
    ):
        _IS_COUNTED.check(found == count, found, name, count)
    vertices = _numbers(lines[:num_vertices], range(3))
    rows = [line.split() for line in faces]
    corners = [row[1 : int(row[0]) + 1] for row in rows]
    for row, some in zip(rows, corners, strict=True):
        _IS_COUNTED.check(len(some) == int(row[0]), len(some), "corners", row[0])
    corners = [[int(corner) for corner in some] for some in corners]
    return Mesh(vertices, _triangles(corners, num_vertices))


def read_ply(content, check_size):
    """Returns the mesh in the bytes of a text or binary PLY file.

    Args:
        content: Bytes.
        check_size: Callable, see `read_off`.
    """
    elements, order, body = _ply_header(content)
    for element in elements.values():
        check_size(element.count)
    data = (
        _ply_text(body, elements)
        if order is None
        else _ply_binary(body, elements, order)
    )
    has_strips = "tristrips" in elements and elements["tristrips"].count
    _require(not has_strips, "faces instead of triangle strips", "tristrips")
    vertex = elements.get("vertex")
    names = list(vertex.scalars) if vertex else []
    _require({"x", "y", "z"} <= {*names}, "vertices with x, y and z", names)
    features = tuple(name for name in names if name not in ("x", "y", "z"))
    columns = [data["vertex"][name] for name in ("x", "y", "z", *features)]
    vertices = np.array(columns, "float64").T  # (vertices, 3 + features)
    corners = ()
    if "face" in elements and elements["face"].count:
        lists = elements["face"].lists
        known = [name for name in lists if name in ("vertex_indices", "vertex_index")]
        known = known or list(lists)
        _require(len(known) == 1, "one list of the corners of a face", [*lists])
        corners = data["face"][known[0]]
    return Mesh(vertices, _triangles(corners, len(vertices)), features)


class _Element(NamedTuple):
    """One kind of elements, as the header of a PLY file describes it."""

    count: int  # type: ignore[assignment]
    properties: dict  # from name to the types of the length, or `None`, and of a number

    @property
    def scalars(self):
        return [name for name, (length, _) in self.properties.items() if not length]

    @property
    def lists(self):
        return [name for name, (length, _) in self.properties.items() if length]


def _require(is_there, what, received):
    rule = FileRule(f"A PLY file must have {what}.", "{!r}", "Convert the file")
    rule.check(is_there, received)


def _ply_header(content):
    """Returns the elements by name, the byte order (`None` for text), and the rest."""
    end = rb"[\r\n]end_header[ \t]*(\r\n|\n|\r)"
    header = re.match(rb"ply\s.*?" + end, content, re.DOTALL)
    _require(header, "a header from `ply` to `end_header`", content[:20])
    elements, order = {}, ""
    for line in header[0].decode(errors="replace").splitlines()[1:-1]:
        match line.split():
            case [] | ["comment" | "obj_info", *_]:
                pass
            case ["format", "ascii", "1.0"]:
                order = None
            case ["format", "binary_little_endian", "1.0"]:
                order = "<"
            case ["format", "binary_big_endian", "1.0"]:
                order = ">"
            case ["element", name, count] if count.isdecimal() and name not in elements:
                elements[name] = properties = _Element(int(count), {})
            case ["property", kind, name] if elements and kind in _PLY_TYPES:
                properties.properties[name] = None, _PLY_TYPES[kind]
            case ["property", "list", length, kind, name] if (
                elements and {length, kind} <= _PLY_TYPES.keys()
            ):
                properties.properties[name] = _PLY_TYPES[length], _PLY_TYPES[kind]
            case _:
                _require(False, "a valid header", line)
    _require(order != "", "a line `format`", "none")
    return elements, order, content[header.end() :]


def _ply_text(body, elements):
    lines = [
        line for line in body.decode(errors="replace").splitlines() if line.strip()
    ]
    data, place = {}, 0
    for name, element in elements.items():
        some = lines[place : place + element.count]
        place += element.count
        _IS_COUNTED.check(len(some) == element.count, len(some), name, element.count)
        if element.lists:
            data[name] = _text_lists(some, name, element)
        else:
            width = len(element.properties)
            table = _numbers(some, None, width)
            found = table.shape[1]
            _IS_COUNTED.check(found == width, found, f"numbers of a {name}", width)
            data[name] = dict(zip(element.properties, table.T, strict=True))
    _IS_COUNTED.check(place == len(lines), len(lines), "elements", place)
    return data


def _text_lists(lines, name, element):
    data = {key: [] for key in element.properties}
    for line in lines:
        row = line.split()
        place = 0
        for key, (length, kind) in element.properties.items():
            number = int if kind[0] in "iu" else float
            size = 1
            if length:
                size = int(row[place]) if place < len(row) else 0
                place += 1
            values = [number(value) for value in row[place : place + size]]
            _IS_COUNTED.check(len(values) == size, len(values), key, size)
            data[key].append(values if length else values[0])
            place += size
        _IS_COUNTED.check(place == len(row), len(row), f"numbers of a {name}", place)
    return data


def _ply_binary(body, elements, order):
    data, place = {}, 0
    for name, element in elements.items():
        if not element.count:
            data[name] = {key: [] for key in element.properties}
            continue
        # Usually all lists of a kind are as long as the first one.
        fields, first = [], place
        for key, (length, kind) in element.properties.items():
            size = 1
            if length:
                fields.append((f"length of {key}", order + length))
                found = body[first : first + np.dtype(length).itemsize]
                size = int.from_bytes(found, "little" if order == "<" else "big")
                first += len(found)
            fields.append((key, order + kind, (size,) if length else ()))
            first += size * np.dtype(kind).itemsize
        width = first - place
        is_there = width * element.count <= len(body) - place
        rows = None
        if is_there:
            rows = np.frombuffer(body, fields, element.count, place)
            is_there = all(
                (rows[f"length of {key}"] == rows[key].shape[1]).all()
                for key in element.lists
            )
        if is_there:
            data[name] = {key: rows[key] for key in element.properties}
            place += width * element.count
        elif element.lists:
            data[name], place = _binary_lists(body, place, name, element, order)
        else:
            found = (len(body) - place) // width
            _IS_COUNTED.check(False, found, name, element.count)
    rest = len(body[place:].strip(b"\0\r\n "))
    _IS_COUNTED.check(rest == 0, len(body), "bytes", place)
    return data


def _binary_lists(body, place, name, element, order):
    """Reads elements one by one, with lists of different lengths."""
    data = {key: [] for key in element.properties}
    for number in range(element.count):
        for key, (length, kind) in element.properties.items():
            sizes = [1]
            for part in (length, kind) if length else (kind,):
                dtype = np.dtype(order + part)
                size = int(sizes[0])
                num_bytes = size * dtype.itemsize
                is_there = 0 <= num_bytes <= len(body) - place
                _IS_COUNTED.check(is_there, number, name, element.count)
                sizes = np.frombuffer(body, dtype, size, place)
                place += num_bytes
            data[key].append(sizes if length else sizes[0])
    return data, place


def _numbers(lines, columns=None, width=3):
    """Returns an array of the numbers in lines of text, one row per line."""
    if not lines:
        return np.zeros((0, width))
    return np.loadtxt(lines, "float64", comments=None, usecols=columns, ndmin=2)


def _triangles(faces, num_vertices):
    """Triangulates faces as fans, and checks their corners."""
    if isinstance(faces, np.ndarray) and faces.ndim == 2:
        fans = [faces[:, [0, i, i + 1]] for i in range(1, faces.shape[1] - 1)]
    else:
        fans = [
            [(face[0], face[i], face[i + 1]) for i in range(1, len(face) - 1)]
            for face in faces
        ]
    fans = [fan for fan in fans if len(fan)]
    if not fans:
        return np.zeros((0, 3), "int64")
    triangles = np.concatenate(fans)
    _require(triangles.dtype.kind in "iu", "integer corners", triangles.dtype)
    is_vertex = (triangles >= 0) & (triangles < num_vertices)
    wrong = triangles[~is_vertex]
    _IS_INDEX.check(not len(wrong), *wrong[:1], num_vertices)
    return triangles.astype("int64")


def sample_surface(mesh, num_points, seed):
    """Returns random points, uniformly distributed on the surface of a mesh.

    Reference:
        [Turk, 1990](https://doi.org/10.1016/B978-0-08-050753-8.50013-2). The points are
        those of `trimesh.sample.sample_surface`.

    Args:
        mesh: `Mesh` with triangles.
        num_points: Integer, number of points.
        seed: Integer, random seed.

    Returns:
        Array of shape `(num_points, 3)`.
    """
    corners = mesh.vertices[mesh.triangles, :3]  # (triangles, 3, 3)
    origins, edges = corners[:, 0], corners[:, 1:] - corners[:, :1]
    with np.errstate(over="ignore", invalid="ignore"):
        normals = np.cross(edges[:, 0], edges[:, 1])
        areas = np.cumsum(np.sqrt((normals**2).sum(axis=1)) / 2)
    _HAS_AREA.check(0 < areas[-1] < np.inf, areas[-1])
    rng = np.random.default_rng(seed)
    chosen = np.searchsorted(areas, rng.random(num_points) * areas[-1])
    weights = rng.random((num_points, 2, 1))
    # Points in the other half of the parallelogram are reflected into the triangle.
    is_outside = weights.sum(axis=(1, 2)) > 1
    weights[is_outside] = 1 - weights[is_outside]
    return (edges[chosen] * weights).sum(axis=1) + origins[chosen]
