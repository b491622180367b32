import builtins
import re

import numpy as np
import pytest
import tensorflow as tf
import trimesh

from keras_perceiver.data import AudioFiles, ImageFiles, PointFiles, VideoFiles
from tests.data.files import (
    TETRAHEDRON,
    cut,
    write_array,
    write_audio,
    write_bytes,
    write_image,
    write_points,
    write_video,
)

pytestmark = pytest.mark.one_backend


def test_image(tmp_path):
    path = tmp_path / "a.png"
    pixels = write_image(path, (6, 8, 3))
    image = ImageFiles((6, 8, 3)).read(path)
    assert image.dtype == "float32"
    np.testing.assert_allclose(image, pixels / 127.5 - 1, atol=1e-6)


def test_image_is_resized_with_antialiasing(tmp_path):
    path = tmp_path / "a.png"
    stripes = np.zeros((64, 64, 1), "uint8")
    stripes[:, ::2] = 255
    write_bytes(path, tf.io.encode_png(stripes).numpy())
    # Without it one in sixteen columns would be looked at, all of one colour.
    assert np.abs(ImageFiles((4, 4, 1)).read(path)).max() < 0.2


def test_image_is_cropped_in_the_middle(tmp_path):
    for shape, crop in (((4, 8, 1), np.s_[:, 2:6]), ((8, 4, 1), np.s_[2:6])):
        path = tmp_path / "a.png"
        pixels = write_image(path, shape)
        expected = pixels[crop] / 127.5 - 1
        cropped = ImageFiles((4, 4, 1), crop_to_aspect_ratio=True).read(path)
        np.testing.assert_allclose(cropped, expected, atol=1e-6)
        distorted = ImageFiles((4, 4, 1)).read(path)
        assert np.abs(distorted - expected).max() > 0.1


def test_audio(tmp_path):
    path = tmp_path / "a.wav"
    audio = write_audio(path, 20)
    np.testing.assert_allclose(AudioFiles(8000).read(path), audio, atol=1e-4)
    np.testing.assert_allclose(AudioFiles(8000, 7).read(path), audio[:7], atol=1e-4)
    longer = AudioFiles(8000, 25, use_mask=True).read(path)
    assert longer.shape == (20,)


def test_points(tmp_path):
    points = write_points(tmp_path / "a.npy", 20)
    np.savetxt(tmp_path / "a.xyz", points, header="", fmt="%.9g")
    for name in ("a.npy", "a.xyz"):
        raw = PointFiles(use_unit_cube=False).read(tmp_path / name)
        assert raw.dtype == "float32"
        np.testing.assert_allclose(raw, points, atol=1e-6)
        scaled = PointFiles().read(tmp_path / name)
        np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-6)
        assert np.abs(scaled).max() == pytest.approx(1)
        # One scale for all axes.
        ratio = (scaled[1:] - scaled[0]) / (points[1:] - points[0])
        np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-3)


def test_features_of_points_are_left_alone(tmp_path):
    points = np.random.default_rng(0).normal(5, 1, (20, 5))
    write_array(tmp_path / "a.npy", points)
    read = PointFiles(num_features=2).read(tmp_path / "a.npy")
    np.testing.assert_allclose(read[:, 3:], points[:, 3:], rtol=1e-6)
    np.testing.assert_allclose(read[:, :3].mean(0), 0, atol=1e-6)


def test_a_part_of_the_points_follows_the_seed(tmp_path):
    points = write_points(tmp_path / "a.npy", 50)

    def read(seed):
        return PointFiles(10, use_unit_cube=False, seed=seed).read(tmp_path / "a.npy")

    part = read(0)
    assert part.shape == (10, 3)
    assert len(np.unique(part, axis=0)) == 10
    assert (part[:, None] == points[None]).all(-1).any(1).all()
    np.testing.assert_array_equal(part, read(0))
    assert (part != read(1)).any()


def test_equal_points_stay_in_one_place(tmp_path):
    write_array(tmp_path / "a.npy", np.ones((4, 3)))
    np.testing.assert_array_equal(PointFiles().read(tmp_path / "a.npy"), 0)


@pytest.mark.parametrize("suffix", ["off", "ply"])
def test_meshes_are_sampled_on_their_surface(tmp_path, suffix):
    path = tmp_path / "a.off"
    path.write_text(TETRAHEDRON)
    if suffix == "ply":
        path = tmp_path / "a.ply"
        trimesh.load(tmp_path / "a.off").export(path)

    def read(seed=0, **options):
        return PointFiles(400, seed=seed, **options).read(path)

    points = read(use_unit_cube=False)
    assert points.shape == (400, 3)
    # On one of the three faces at 0, or on x + y + z = 2.
    on_axes = np.abs(points).min(1) < 1e-6
    on_slope = np.abs(points.sum(1) - 2) < 1e-5
    assert (on_axes | on_slope).all()
    # By area: each face at 0 has 2, the slope has 3.46.
    assert on_slope.mean() == pytest.approx(3.46 / 9.46, abs=0.08)
    np.testing.assert_array_equal(points, read(use_unit_cube=False))
    assert (read(1) != read(0)).any()


def test_mesh_without_faces_gives_its_vertices(tmp_path):
    points = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    trimesh.PointCloud(points).export(tmp_path / "a.ply")
    read = PointFiles(use_unit_cube=False).read(tmp_path / "a.ply")
    np.testing.assert_allclose(read, points, atol=1e-6)


def test_missing_trimesh_names_the_extra(monkeypatch, tmp_path):
    (tmp_path / "a.off").write_text(TETRAHEDRON)
    real_import = builtins.__import__

    def no_trimesh(name, *args, **kwargs):
        if name.startswith("trimesh"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_trimesh)
    with pytest.raises(ImportError, match=r"pip install .keras_perceiver\[points\]"):
        PointFiles(10).read(tmp_path / "a.off")


def test_video(tmp_path):
    frames = write_video(tmp_path / "a.npy", (3, 4, 6, 2))
    video = VideoFiles((3, 4, 6, 2)).read(tmp_path / "a.npy")
    assert video.dtype == "float32"
    np.testing.assert_allclose(video, frames / 127.5 - 1, atol=1e-6)


def _truncated_png(path):
    write_image(path)
    cut(path, 50)


def _truncated_wav(path):
    write_audio(path)
    cut(path, 3)


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
    (ImageFiles((6, 8, 3)), "a.png", _truncated_png, "Invalid PNG"),
    (ImageFiles((6, 8, 3)), "a.jpg", _text("hello"), "Unknown image"),
    (ImageFiles((6, 8, 3)), "a.png", _text(""), "empty"),
    (
        ImageFiles((6, 8, 3)),
        "a.png",
        lambda path: write_image(path, (6, 8, 1)),
        "must have 3 channels.*channels=1.*Convert",
    ),
    (ImageFiles((6, 8, 1)), "a.png", write_image, "must have 1 channels.*channels=3"),
    (AudioFiles(8000), "a.wav", _truncated_wav, "16-bit WAV.*too short"),
    (
        AudioFiles(8000),
        "a.wav",
        lambda path: write_audio(path, sample_rate=16000),
        "`sample_rate=8000` hertz.*sample_rate=16000.*Resample",
    ),
    (
        AudioFiles(8000),
        "a.wav",
        lambda path: write_audio(path, channels=2),
        "must be mono.*2 channels.*Mix",
    ),
    (AudioFiles(8000), "a.wav", lambda path: write_audio(path, 0), "num_samples=0"),
    (
        AudioFiles(8000, 21),
        "a.wav",
        write_audio,
        "Without a mask.*num_samples=20 where 21 are asked.*use_mask=True",
    ),
    (PointFiles(), "a.npy", _truncated_npy, "array of numbers"),
    (PointFiles(), "a.npy", _pickle, "array of numbers"),
    (
        PointFiles(),
        "a.npy",
        lambda path: write_array(path, np.ones((4, 3), "complex64")),
        "array of numbers.*complex64",
    ),
    (PointFiles(), "a.npy", lambda path: write_points(path, 0), "num_points=0"),
    (PointFiles(), "a.npy", _not_finite(np.nan), "must be finite.*NaN"),
    (PointFiles(), "a.npy", _not_finite(np.inf), "must be finite"),
    (PointFiles(use_unit_cube=False), "a.npy", _not_finite(1e300), "must be finite"),
    (
        PointFiles(num_features=1),
        "a.npy",
        write_points,
        r"shape `\(points, 4\)`.*shape \(20, 3\).*Set `num_features`",
    ),
    (PointFiles(21), "a.npy", write_points, "num_points=20 where 21 are asked"),
    (PointFiles(), "a.xyz", _text(""), "num_points=0"),
    (PointFiles(), "a.xyz", _text("1 2 3\n4 5\n"), "a text of numbers"),
    (PointFiles(), "a.xyz", _text("1 2 nan\n"), "must be finite"),
    (PointFiles(10), "a.off", _text("hello"), "must be a mesh"),
    (PointFiles(10), "a.off", _text("OFF\n0 0 0\n"), "num_points=0"),
    (
        PointFiles(10),
        "a.off",
        _text(TETRAHEDRON.replace("0 2 0", "0 nan 0")),
        "must be finite",
    ),
    (PointFiles(), "a.off", _text(TETRAHEDRON), "num_points=None.*Set `num_points`"),
    (PointFiles(10), "a.ply", _text("ply\n"), "must be a mesh"),
    (
        VideoFiles((3, 4, 6, 2)),
        "a.npy",
        lambda path: write_video(path, (3, 6, 4, 2)),
        r"shape \(3, 4, 6, 2\).*shape \(3, 6, 4, 2\).*Convert",
    ),
    (
        VideoFiles((1, 1, 20, 3)),
        "a.npy",
        lambda path: write_array(path, np.ones((1, 1, 20, 3), "float32")),
        "uint8.*float32",
    ),
]


def test_bad_file_is_named(tmp_path, subtests):
    for number, (files, name, write, message) in enumerate(BAD_FILES):
        path = tmp_path / str(number) / name
        write(path)
        with subtests.test(name=name, message=message):
            with pytest.raises(ValueError, match=message) as error:
                files.read(path)
            text = str(error.value)
            assert f" in {path}. " in text
            assert re.search("Received: .*skip_bad_files=True", text, re.DOTALL)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ImageFiles((8, 8)), r"\(height, width, channels\).*Give 3 sizes"),
        (lambda: ImageFiles((8, 0, 3)), "`width` must be a positive integer"),
        (lambda: VideoFiles((8, 8, 3)), r"\(frames, height, width, channels\)"),
        (lambda: AudioFiles(0), "`sample_rate` must be a positive"),
        (lambda: AudioFiles(8000, 0), "`num_samples` must be a positive"),
        (lambda: AudioFiles(8000, use_mask=False), "need a mask.*Set `num_samples`"),
        (lambda: PointFiles(use_mask=False), "need a mask.*Set `num_points`"),
        (lambda: PointFiles(num_features=-1), "`num_features` must not be negative"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
