"""AudioSet: ten-second audio and video clips from YouTube in 527 classes."""

import csv
import dataclasses
import logging
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from keras_perceiver.data.builders import NUM_AUDIOSET_CLASSES
from keras_perceiver.data.builders.archives import check_there
from keras_perceiver.modalities import AudioPreprocessor

SAMPLE_RATE = 48_000  # hertz, the paper's
_CLASSES = "class_labels_indices.csv"
_URL = "http://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/"

_CITATION = """\
@inproceedings{gemmeke2017audioset,
  title = {{Audio Set}: An ontology and human-labeled dataset for audio events},
  author = {Gemmeke, Jort F. and Ellis, Daniel P. W. and Freedman, Dylan and
            Jansen, Aren and Lawrence, Wade and Moore, R. Channing and
            Plakal, Manoj and Ritter, Marvin},
  booktitle = {IEEE International Conference on Acoustics, Speech and Signal Processing},
  year = {2017}
}"""


@dataclasses.dataclass(eq=False)
class AudiosetConfig(tfds.core.BuilderConfig):
    """Configuration of the AudioSet builder.

    Attributes:
        train_segments: Tuple of strings, the segment lists of the training data.
        use_video: Boolean, whether video frames are read as well.
    """

    train_segments: tuple = ()
    use_video: bool = False


_BALANCED = ("balanced_train_segments.csv",)
_ALL = ("balanced_train_segments.csv", "unbalanced_train_segments.csv")


class Audioset(tfds.core.GeneratorBasedBuilder):
    """AudioSet for TensorFlow Datasets, from lists and clips in the manual folder.

    AudioSet is published as lists of segments. The folder `audio/` must contain one
    16-bit mono WAV file of 48 kHz per segment. For the configurations with video,
    `video/` must contain one folder of JPEG frames per segment, 25 per second, in the
    order of their names. Both are named `<id>_<start>`, by YouTube's id and the
    segment's first second: `video/--PJHxphWEs_30/0001.jpg` belongs to
    `audio/--PJHxphWEs_30.wav`. Segments without a WAV file are skipped and counted,
    since many are no longer on YouTube. Segments without frames have an empty video.

    Configurations: `balanced` (the 22 thousand segments of the balanced list) and `all`
    (with the two million others), each with `_video`.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Put {_CLASSES}, eval_segments.csv and the lists of training segments from "
        f"{_URL} into the manual folder, together with the folder audio/ with "
        "<id>_<start>.wav and, for video, video/<id>_<start>/ with JPEG frames."
    )
    BUILDER_CONFIGS = (
        AudiosetConfig(name="balanced", description="Audio.", train_segments=_BALANCED),
        AudiosetConfig(name="all", description="Audio.", train_segments=_ALL),
        AudiosetConfig(
            name="balanced_video",
            description="Audio and video.",
            train_segments=_BALANCED,
            use_video=True,
        ),
        AudiosetConfig(
            name="all_video",
            description="Audio and video.",
            train_segments=_ALL,
            use_video=True,
        ),
    )

    def _info(self):
        features = {
            "name": tfds.features.Text(),
            "audio": tfds.features.Audio(
                shape=(None,), dtype=np.int16, sample_rate=SAMPLE_RATE
            ),
            "labels": tfds.features.Sequence(
                tfds.features.ClassLabel(num_classes=NUM_AUDIOSET_CLASSES)
            ),
        }
        if self.builder_config.use_video:
            features["video"] = tfds.features.Sequence(
                tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
            )
        return tfds.core.DatasetInfo(
            builder=self,
            description="Ten-second clips from YouTube, labeled by human annotators. "
            + self.builder_config.description,
            features=tfds.features.FeaturesDict(features),
            homepage="https://research.google.com/audioset",
            citation=_CITATION,
        )

    def _split_generators(self, dl_manager):
        folder = Path(dl_manager.manual_dir)
        train = self.builder_config.train_segments
        for name in (_CLASSES, *train, "eval_segments.csv"):
            # Google publishes no digests of these files.
            check_there(folder / name, _URL + name)
        with (folder / _CLASSES).open(newline="") as file:
            classes = sorted(csv.DictReader(file), key=lambda row: int(row["index"]))
        if len(classes) != NUM_AUDIOSET_CLASSES:
            raise ValueError(
                f"{_CLASSES} must list {NUM_AUDIOSET_CLASSES} classes. Received: "
                f"{len(classes)} in {folder}. Download {_URL + _CLASSES} again."
            )
        names = [row["display_name"] for row in classes]
        self.info.features["labels"].feature.names = names
        indices = {row["mid"]: i for i, row in enumerate(classes)}
        return {
            "train": self._generate_examples(folder, train, indices),
            "test": self._generate_examples(folder, ("eval_segments.csv",), indices),
        }

    def _generate_examples(self, folder, lists, indices):
        preprocessor = AudioPreprocessor(SAMPLE_RATE)
        num_found = num_missing = 0
        for name in lists:
            for youtube_id, start, labels in _segments(folder / name):
                segment = f"{youtube_id}_{start}"
                path = folder / "audio" / f"{segment}.wav"
                if not path.is_file():
                    num_missing += 1
                    continue
                num_found += 1
                audio = np.clip(preprocessor.read(path) * 2**15, -(2**15), 2**15 - 1)
                example = {
                    "name": segment,
                    "audio": np.rint(audio).astype("int16"),
                    "labels": [indices[label] for label in labels],
                }
                if self.builder_config.use_video:
                    frames = (folder / "video" / segment).glob("*.jpg")
                    example["video"] = sorted(map(str, frames))
                yield segment, example
        if not num_found:
            raise FileNotFoundError(
                f"There must be clips of the segments in {', '.join(lists)}. Received: "
                f"none of {num_missing} in {folder / 'audio'}. Name them <id>_<start>.wav "
                "with YouTube's id and the first second."
            )
        logging.getLogger(__name__).warning(
            "%s: read %d clips, skipped %d segments without a clip",
            ", ".join(lists),
            num_found,
            num_missing,
        )


def _segments(path):
    """Yields the YouTube id, the first second and the labels of each segment."""
    with path.open(newline="") as file:
        rows = (line for line in file if not line.startswith("#"))
        for youtube_id, start, _, labels in csv.reader(rows, skipinitialspace=True):
            yield youtube_id, f"{float(start):g}", labels.split(",")
