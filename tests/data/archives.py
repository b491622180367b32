"""Writes tiny archives of the datasets that are prepared from archives."""

import io
import zipfile

import h5py
import numpy as np
import tensorflow as tf

from keras_perceiver.data.builders import modelnet40
from tests.data.files import TETRAHEDRON, write_audio, write_bytes


def write_meshes(folder, num_train=5, num_test=2):
    """Writes ModelNet40.zip with lamps and larger chairs, some without a line break."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "ModelNet40.zip", "w") as archive:
        archive.writestr("__MACOSX/ModelNet40/lamp/train/._lamp_0.off", b"\0")
        for name, mesh in (
            ("chair", TETRAHEDRON.replace("2 0 0", "8 0 0")),
            ("lamp", TETRAHEDRON.replace("OFF\n", "OFF")),
        ):
            for part, count in (("train", num_train), ("test", num_test)):
                for i in range(count):
                    path = f"ModelNet40/{name}/{part}/{name}_{i}{part}.off"
                    archive.writestr(path, mesh)


def write_points_2048(folder, num_train=(3, 2), num_test=(2,)):
    """Writes the HDF5 release, in which the coordinates of an example are its index."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    with zipfile.ZipFile(folder / "modelnet40_ply_hdf5_2048.zip", "w") as archive:
        for part, counts in (("train", num_train), ("test", num_test)):
            for i, count in enumerate(counts):
                numbers = np.arange(number, number + count)
                number += count
                content = io.BytesIO()
                with h5py.File(content, "w") as file:
                    shape = (count, 2048, 3)
                    points = np.broadcast_to(numbers[:, None, None], shape)
                    file["data"] = points.astype("float32")
                    file["label"] = (numbers % 40)[:, None].astype("uint8")
                name = f"modelnet40_ply_hdf5_2048/ply_data_{part}{i}.h5"
                archive.writestr(name, content.getvalue())


def accept_any_archive(monkeypatch):
    for config in modelnet40.Modelnet40.BUILDER_CONFIGS:
        monkeypatch.setattr(config, "digests", {})


def write_audioset(folder, num_train=4, num_test=2, seconds=2.0, use_video=True):
    """Writes lists and clips. The second segment of each list has no clip.

    Returns:
        Dict from `<id>_<start>` to waveform.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f'{i},/m/{i},"Sound {i}, or so"' for i in range(527)]
    text = "\n".join(["index,mid,display_name", *rows])
    (folder / "class_labels_indices.csv").write_text(text)
    written = {}
    for part, count in (("balanced_train", num_train), ("eval", num_test)):
        lines = ["# Segments csv", "# a", "# YTID, start_seconds, end_seconds, labels"]
        for i in range(count):
            segment = f"{part[0]}_-{i}"  # ids may contain both characters
            lines.append(
                f'{segment}, {30 + i}.000, {40 + i}.000, "/m/{i},/m/{500 + i}"'
            )
            if i == 1:
                continue
            name = f"{segment}_{30 + i}"
            written[name] = write_audio(
                folder / "audio" / f"{name}.wav", int(48_000 * seconds), 48_000, seed=i
            )
            if use_video and i != 2:
                for frame in range(int(25 * seconds)):
                    # It gets brighter by 4 levels per frame.
                    image = np.full((40, 48, 3), 4 * frame, "uint8")
                    content = tf.io.encode_jpeg(image).numpy()
                    path = folder / "video" / name / f"{frame:04}.jpg"
                    write_bytes(path, content)
        (folder / f"{part}_segments.csv").write_text("\n".join(lines))
    return written
