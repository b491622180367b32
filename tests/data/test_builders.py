import numpy as np
import pytest

from keras_perceiver.data import audioset, modelnet40
from tests.data.archives import (
    accept_any_archive,
    write_audioset,
    write_meshes,
    write_points_2048,
)

pytestmark = pytest.mark.one_backend

_WHOLE = {"train_split": "train", "validation_split": "train"}


def test_meshes_are_sampled_on_their_surface(tmp_path, monkeypatch):
    accept_any_archive(monkeypatch)
    write_meshes(tmp_path)
    splits = modelnet40(2, folder=tmp_path, **_WHOLE)
    labels = []
    for points, some_labels in splits.validation:
        assert points.shape[1:] == (2048, 3)
        np.testing.assert_allclose(np.mean(points, axis=1), 0, atol=1e-4)
        np.testing.assert_allclose(np.abs(points).max(axis=(1, 2)), 1)
        longest = np.ptp(points, axis=1)
        for size, label in zip(longest, some_labels, strict=True):
            is_chair = splits.class_names[label] == "chair"
            assert (size[0] > 2 * size[1]) == is_chair
        labels += [splits.class_names[label] for label in some_labels]
    assert sorted(labels) == ["chair"] * 5 + ["lamp"] * 5
    assert sum(len(labels) for _, labels in splits.test) == 4
    # Once prepared, the archive is not needed anymore.
    (tmp_path / "ModelNet40.zip").unlink()
    assert len(modelnet40(2, folder=tmp_path, **_WHOLE).train) == 5


def test_archives_that_are_not_the_published_ones(tmp_path):
    write_meshes(tmp_path)
    write_points_2048(tmp_path)
    with pytest.raises(
        ValueError, match=r"digest sha256:42dc3e.*ModelNet40.zip.*trunc"
    ):
        modelnet40(2, folder=tmp_path)
    with pytest.raises(
        ValueError,
        match=r"digest md5:\w*. Received: md5:\w* of ply_data_\w*0.h5.*trunc",
    ):
        modelnet40(2, folder=tmp_path, release="points_2048")


@pytest.fixture(scope="module")
def audioset_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audioset")
    return folder, write_audioset(folder)


def test_audioset_reads_what_the_lists_name(audioset_folder, caplog):
    folder, written = audioset_folder
    options = {**_WHOLE, "segments": "balanced", "folder": folder}
    splits = audioset(1, use_mask=True, **options)
    assert "read 3 clips, skipped 1 segments" in caplog.text
    assert splits.class_names[2:4] == ("Sound 2, or so", "Sound 3, or so")
    seen = {}
    for inputs, labels in splits.validation:
        label, far = np.flatnonzero(labels[0])
        assert far == 500 + label
        # The clip in the middle of 50 frames starts at the ninth frame.
        start = 9 * 1920
        audio = written[f"b_-{label}_{30 + label}"][start : start + 61_440]
        np.testing.assert_allclose(inputs["audio"][0], audio, atol=1e-4)
        assert inputs["audio_mask"].numpy().all()
        video, mask = inputs["video"][0].numpy(), inputs["video_mask"].numpy()
        seen[label] = mask.any()
        if seen[label]:
            assert mask.all()
            levels = (video.mean(axis=(1, 2, 3)) + 1) * 127.5
            np.testing.assert_allclose(levels, 4 * np.arange(9, 41), atol=1.5)
        else:
            np.testing.assert_array_equal(video, 0)
    assert seen == {0: True, 2: False, 3: True}

    # In training, audio and video are from the same time.
    starts = set()
    for inputs, labels in splits.epoch(0):
        label = int(np.argmax(labels[0]))
        clip, whole = inputs["audio"][0], written[f"b_-{label}_{30 + label}"]
        errors = [
            np.abs(clip - whole[1920 * i : 1920 * i + 61_440]).max() for i in range(19)
        ]
        start = int(np.argmin(errors))
        assert errors[start] < 1e-4
        starts.add(start)
        if label != 2:
            # Colors are augmented, and each frame that is not black is still brighter.
            levels = inputs["video"][0].numpy().mean(axis=(1, 2, 3))
            assert (np.diff(levels[5:]) > 0.02).all()
    assert len(starts) > 1

    clips = audioset(1, modalities=["audio"], num_test_clips=3, **options)
    for audio, labels in clips.test:
        label = int(np.argmax(labels[0]))
        whole = written[f"e_-{label}_{30 + label}"]
        expected = [whole[1920 * i : 1920 * i + 61_440] for i in (0, 9, 18)]
        np.testing.assert_allclose(audio[0], expected, atol=1e-4)


def test_audioset_without_clips(tmp_path):
    folder = tmp_path
    options = {"segments": "balanced", "folder": folder, "modalities": ["audio"]}
    with pytest.raises(FileNotFoundError, match="no .*class_labels_indices.csv"):
        audioset(1, **options)
    write_audioset(folder, seconds=0.01, use_video=False)
    for path in (folder / "audio").iterdir():
        path.unlink()
    with pytest.raises(
        FileNotFoundError, match="none of 4 in .*Name them <id>_<start>"
    ):
        audioset(1, **options)
    (folder / "class_labels_indices.csv").write_text("index,mid,display_name\n0,/m/0,a")
    with pytest.raises(ValueError, match="must list 527 classes. Received: 1"):
        audioset(1, **options)
