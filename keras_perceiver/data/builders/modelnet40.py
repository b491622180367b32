"""ModelNet40: CAD models of 40 kinds of things, as point clouds."""

import dataclasses
import io
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from keras_perceiver.data.builders import MODELNET40_POINTS
from keras_perceiver.data.builders.archives import check_archive
from keras_perceiver.data.files import PointFiles

CLASS_NAMES = (
    *("airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car"),
    *("chair", "cone", "cup", "curtain", "desk", "door", "dresser", "flower_pot"),
    *("glass_box", "guitar", "keyboard", "lamp", "laptop", "mantel", "monitor"),
    *("night_stand", "person", "piano", "plant", "radio", "range_hood", "sink"),
    *("sofa", "stairs", "stool", "table", "tent", "toilet", "tv_stand", "vase"),
    *("wardrobe", "xbox"),
)

_CITATION = """\
@inproceedings{wu2015modelnet,
  title = {{3D ShapeNets}: A Deep Representation for Volumetric Shapes},
  author = {Wu, Zhirong and Song, Shuran and Khosla, Aditya and Yu, Fisher and
            Zhang, Linguang and Tang, Xiaoou and Xiao, Jianxiong},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year = {2015}
}"""

_CITATION_2048 = """\
@inproceedings{qi2017pointnet,
  title = {{PointNet}: Deep Learning on Point Sets for {3D} Classification and
           Segmentation},
  author = {Qi, Charles R. and Su, Hao and Mo, Kaichun and Guibas, Leonidas J.},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year = {2017}
}"""


@dataclasses.dataclass(eq=False)
class Modelnet40Config(tfds.core.BuilderConfig):
    """One of the two releases.

    Attributes:
        archive: String, name of the archive in the manual folder.
        url: String, where it comes from.
        sha256: String, its digest, or `None` to take what is there.
        num_points: Integer, points of an example.
        citation: String, of this release.
    """

    archive: str = ""
    url: str = ""
    sha256: str | None = None
    num_points: int = MODELNET40_POINTS
    citation: str = ""


class Modelnet40(tfds.core.GeneratorBasedBuilder):
    """ModelNet40 for TensorFlow Datasets, from an archive in the manual folder.

    Configurations: `meshes`, 12,311 meshes of which the surface is sampled when the data
    are prepared, as `PointFiles` does; and `points_2048`, the HDF5 release of PointNet's
    authors with 12,308 of them, whose points are already in the unit ball.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put ModelNet40.zip (modelnet40/meshes) or modelnet40_ply_hdf5_2048.zip "
        "(modelnet40/points_2048) into the manual folder."
    )
    # The digests are those of archives as their publishers give them.
    BUILDER_CONFIGS = (
        Modelnet40Config(
            name="meshes",
            description="2,048 random points on the surface of each mesh.",
            archive="ModelNet40.zip",
            url="https://modelnet.cs.princeton.edu/ModelNet40.zip",
            sha256="42dc3e656932e387f554e25a4eb2cc0e1a1bd3ab54606e2a9eae444c60e536ac",
            citation=_CITATION,
        ),
        Modelnet40Config(
            name="points_2048",
            description="The 2,048 points of the release by the authors of PointNet.",
            archive="modelnet40_ply_hdf5_2048.zip",
            url="https://shapenet.cs.stanford.edu/media/modelnet40_ply_hdf5_2048.zip",
            sha256="07670e237db72ece0f723b9abb571534c9ad655a6456b389646587dc72bb8bae",
            citation=_CITATION + "\n" + _CITATION_2048,
        ),
    )

    def _info(self):
        config = self.builder_config
        return tfds.core.DatasetInfo(
            builder=self,
            description="CAD models of 40 kinds of things as point clouds. "
            + config.description,
            features=tfds.features.FeaturesDict(
                {
                    "points": tfds.features.Tensor(
                        shape=(config.num_points, 3), dtype=np.float32
                    ),
                    "label": tfds.features.ClassLabel(names=CLASS_NAMES),
                }
            ),
            supervised_keys=("points", "label"),
            homepage="https://modelnet.cs.princeton.edu",
            citation=config.citation,
        )

    def _split_generators(self, dl_manager):
        config = self.builder_config
        path = Path(dl_manager.manual_dir) / config.archive
        check_archive(path, config.url, config.sha256)
        return {part: self._generate_examples(path, part) for part in ("train", "test")}

    def _generate_examples(self, path, part):
        is_meshes = self.builder_config.name.startswith("meshes")
        return self._meshes(path, part) if is_meshes else self._points(path, part)

    def _meshes(self, path, part):
        reader = PointFiles(self.builder_config.num_points, use_unit_cube=False)
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            for member in archive.namelist():
                # ModelNet40/<class>/<part>/<file>.off, beside what a Mac added
                *above, label, its_part, name = member.split("/")[-4:]
                if not name.endswith(".off") or its_part != part or "__MACOSX" in above:
                    continue
                mesh = Path(folder) / name
                mesh.write_bytes(_with_header(archive.read(member)))
                yield name, {"points": reader.read(mesh), "label": label}
                mesh.unlink()

    def _points(self, path, part):
        import h5py  # Keras needs it

        with zipfile.ZipFile(path) as archive:
            for member in sorted(archive.namelist()):
                name = Path(member).name
                if not (name.startswith(f"ply_data_{part}") and name.endswith(".h5")):
                    continue
                with h5py.File(io.BytesIO(archive.read(member))) as file:
                    points, labels = file["data"][:], file["label"][:].ravel()
                for i, (cloud, label) in enumerate(zip(points, labels, strict=True)):
                    cloud = cloud[: self.builder_config.num_points].astype("float32")
                    yield f"{name}-{i}", {"points": cloud, "label": int(label)}


def _with_header(content):
    """Returns an OFF file with its first word on a line of its own.

    In a good part of ModelNet40 the counts follow it without a space.
    """
    if content.startswith(b"OFF") and content[3:4] not in b"\r\n":
        return b"OFF\n" + content[3:]
    return content
