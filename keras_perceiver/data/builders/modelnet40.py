"""ModelNet40: point clouds of CAD models in 40 classes."""

import dataclasses
import io
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from keras_perceiver.data.builders import MODELNET40_POINTS
from keras_perceiver.data.builders.archives import check_digest, check_there
from keras_perceiver.modalities import PointCloudPreprocessor

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


# The publishers provide none. These are the digests that other libraries check: that of
# the archive of meshes, and those of the files in the other archive.
_MESHES_DIGESTS = {
    "ModelNet40.zip": "sha256:"
    "42dc3e656932e387f554e25a4eb2cc0e1a1bd3ab54606e2a9eae444c60e536ac"
}
_POINTS_2048_DIGESTS = {
    "ply_data_train0.h5": "md5:3176385ffc31a7b6b5af22191fd920d1",
    "ply_data_train1.h5": "md5:e3f613fb500559403b34925112754dc4",
    "ply_data_train2.h5": "md5:0c56e233a090ff87c3049d4ce08e7d8b",
    "ply_data_train3.h5": "md5:9d2af465adfa33a3285c369f3ca66c45",
    "ply_data_train4.h5": "md5:dff38de489b2c41bfaeded86c2208984",
    "ply_data_test0.h5": "md5:e9732e6d83b09e79e9a7617df058adee",
    "ply_data_test1.h5": "md5:aba4b12a67c34391cc3c015a6f08ed4b",
}


@dataclasses.dataclass(eq=False)
class Modelnet40Config(tfds.core.BuilderConfig):
    """Configuration of the ModelNet40 builder: one of the two releases.

    Attributes:
        archive: String, name of the archive in the manual folder.
        url: String, where to download it.
        digests: Dict from the name of the archive, or of a file in it, to its digest,
            see `check_digest`. Other files are not checked.
        num_points: Integer, points per example.
        citation: String, BibTeX entries of this release.
    """

    archive: str = ""
    url: str = ""
    digests: dict = dataclasses.field(default_factory=dict)
    num_points: int = MODELNET40_POINTS
    citation: str = ""


class Modelnet40(tfds.core.GeneratorBasedBuilder):
    """ModelNet40 for TensorFlow Datasets, from an archive in the manual folder.

    Configurations: `meshes`, 12,311 meshes whose surface is sampled when the data are
    prepared, as `PointCloudPreprocessor` does, and `points_2048`, the HDF5 release by
    the authors of PointNet with 12,308 of them, whose points are already in the unit
    ball.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put ModelNet40.zip (modelnet40/meshes) or modelnet40_ply_hdf5_2048.zip "
        "(modelnet40/points_2048) into the manual folder."
    )
    BUILDER_CONFIGS = (
        Modelnet40Config(
            name="meshes",
            description="2,048 random points on the surface of each mesh.",
            archive="ModelNet40.zip",
            url="https://modelnet.cs.princeton.edu/ModelNet40.zip",
            digests=_MESHES_DIGESTS,
            citation=_CITATION,
        ),
        Modelnet40Config(
            name="points_2048",
            description="The 2,048 points of the release by the authors of PointNet.",
            archive="modelnet40_ply_hdf5_2048.zip",
            url="https://shapenet.cs.stanford.edu/media/modelnet40_ply_hdf5_2048.zip",
            digests=_POINTS_2048_DIGESTS,
            citation=_CITATION + "\n" + _CITATION_2048,
        ),
    )

    def _info(self):
        config = self.builder_config
        return tfds.core.DatasetInfo(
            builder=self,
            description="Point clouds of CAD models in 40 classes. "
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
        check_there(path, config.url)
        with path.open("rb") as file:
            self._check(file, config.archive)
        return {part: self._generate_examples(path, part) for part in ("train", "test")}

    def _check(self, file, name):
        config = self.builder_config
        check_digest(file, name, config.digests.get(name), config.url)

    def _generate_examples(self, path, part):
        is_meshes = self.builder_config.name.startswith("meshes")
        return self._meshes(path, part) if is_meshes else self._points(path, part)

    def _meshes(self, path, part):
        preprocessor = PointCloudPreprocessor(
            self.builder_config.num_points, use_unit_cube=False
        )
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            for member in archive.namelist():
                # ModelNet40/<class>/<part>/<file>.off, and files that macOS added
                if not member.endswith(".off") or "__MACOSX" in member:
                    continue
                *_, label, its_part, name = member.split("/")
                if its_part != part:
                    continue
                mesh = Path(folder) / name
                mesh.write_bytes(archive.read(member))
                yield name, {"points": preprocessor.read(mesh), "label": label}
                mesh.unlink()

    def _points(self, path, part):
        import h5py  # Keras needs it

        with zipfile.ZipFile(path) as archive:
            for member in sorted(archive.namelist()):
                name = Path(member).name
                if not (name.startswith(f"ply_data_{part}") and name.endswith(".h5")):
                    continue
                content = archive.read(member)
                self._check(io.BytesIO(content), name)
                with h5py.File(io.BytesIO(content)) as file:
                    points, labels = file["data"][:], file["label"][:].ravel()
                for i, (cloud, label) in enumerate(zip(points, labels, strict=True)):
                    cloud = cloud[: self.builder_config.num_points].astype("float32")
                    yield f"{name}-{i}", {"points": cloud, "label": int(label)}
