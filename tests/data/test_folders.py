import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_perceiver as kp
from keras_perceiver import (
    AudioPreprocessor,
    ImagePreprocessor,
    PointCloudPreprocessor,
    Preprocessor,
    VideoPreprocessor,
)
from keras_perceiver.data import folders, read_folder
from tests.data.files import (
    cut,
    write_array,
    write_audio,
    write_bytes,
    write_image,
    write_points,
    write_video,
)

IMAGES = ImagePreprocessor((6, 8, 3))

pytestmark = pytest.mark.one_backend


@pytest.fixture
def images(tmp_path):
    """Seven images in two classes, with a different image for each seed."""
    for seed in range(7):
        name = "cat" if seed < 4 else "dog"
        write_image(tmp_path / "images" / name / f"{seed}.png", seed=seed)
    return tmp_path / "images"


@pytest.fixture
def notes(tmp_path):
    """Forty audio files of 1 to 40 samples, whose length determines the class."""
    for length in range(1, 41):
        name = "long" if length > 20 else "short"
        write_audio(tmp_path / "notes" / name / f"{length:02}.wav", length)
    return tmp_path / "notes"


def _batches(dataset):
    return list(dataset.as_numpy_iterator())


def _epoch(dataset):
    inputs, labels = zip(*_batches(dataset), strict=True)
    return np.concatenate(inputs), np.concatenate(labels)


def test_folder_in_order(images):
    (images / ".hidden").mkdir()
    (images / "cat" / ".0.png").write_text("of a file manager")
    read = read_folder(images, IMAGES, batch_size=3, shuffle=False)
    assert {kind for _, kind in read.ignored} == {"hidden"}
    assert read.class_names == ("cat", "dog")
    assert read.skipped == ()
    assert [path.relative_to(images).as_posix() for path in read.paths] == [
        *(f"cat/{i}.png" for i in range(4)),
        *(f"dog/{i}.png" for i in range(4, 7)),
    ]
    inputs, labels = read.dataset.element_spec
    assert inputs == tf.TensorSpec((None, 6, 8, 3), "float32")
    assert labels == tf.TensorSpec((None,), "int32")
    x, y = _epoch(read.dataset)
    np.testing.assert_array_equal(x, [IMAGES.read(path) for path in read.paths])
    np.testing.assert_array_equal(y, [0] * 4 + [1] * 3)
    assert [len(y) for _, y in _batches(read.dataset)] == [3, 3, 1]
    assert int(read.dataset.cardinality()) == 3


def test_order_follows_the_seed_and_is_new_every_epoch(images):
    def epochs(seed):
        dataset = read_folder(images, IMAGES, batch_size=3, seed=seed).dataset
        return [_epoch(dataset) for _ in range(2)]

    (first, second), (again, _), (other, _) = epochs(0), epochs(0), epochs(1)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != second[0]).any()
    assert (first[0] != other[0]).any()
    # Labels stay with their examples.
    inputs, labels = _epoch(
        read_folder(images, IMAGES, batch_size=7, shuffle=False).dataset
    )
    known = {x.tobytes(): y for x, y in zip(inputs, labels, strict=True)}
    assert all(known[x.tobytes()] == y for x, y in zip(*first, strict=True))


def test_drop_remainder_gives_one_static_shape(images):
    read = read_folder(images, IMAGES, batch_size=3, drop_remainder=True)
    assert read.dataset.element_spec[0].shape == (3, 6, 8, 3)
    assert int(read.dataset.cardinality()) == len(_batches(read.dataset)) == 2


def test_class_names_of_the_training_folder(images):
    read = read_folder(
        images, IMAGES, 7, class_names=["dog", "cow", "cat"], shuffle=False
    )
    assert read.class_names == ("dog", "cow", "cat")
    _, labels = _epoch(read.dataset)
    np.testing.assert_array_equal(labels, [0] * 3 + [2] * 4)
    with pytest.raises(ValueError, match=r"folders \['dog'\].*Remove or rename"):
        read_folder(images, IMAGES, 7, class_names=["cat"])


def test_any_length_is_padded_with_a_mask(notes):
    read = read_folder(notes, AudioPreprocessor(8000), batch_size=16, shuffle=False)
    spec, _ = read.dataset.element_spec
    assert spec["audio"] == tf.TensorSpec((None, None), "float32")
    assert spec["audio_mask"] == tf.TensorSpec((None, None), "bool")
    seen = 0
    for inputs, labels in _batches(read.dataset):
        audio, mask = inputs["audio"], inputs["audio_mask"]
        for row in range(len(labels)):
            expected = AudioPreprocessor(8000).read(read.paths[seen])
            np.testing.assert_array_equal(audio[row][mask[row]], expected)
            assert mask[row, : len(expected)].all()
            assert not mask[row, len(expected) :].any()
            assert not audio[row, len(expected) :].any()
            seen += 1
    assert seen == 40


def test_buckets_have_little_padding_and_few_shapes(notes):
    def padding(**options):
        read = read_folder(notes, AudioPreprocessor(8000), batch_size=5, **options)
        batches = _batches(read.dataset)
        assert len(batches) == int(read.dataset.cardinality())
        masks = [inputs["audio_mask"] for inputs, _ in batches]
        lengths = sorted(n for mask in masks for n in mask.sum(1))
        num_positions = sum(mask.size for mask in masks)
        return 1 - sum(lengths) / num_positions, masks, lengths

    one_bucket, _, lengths = padding(num_buckets=1)
    assert lengths == list(range(1, 41))
    many, masks, lengths = padding(num_buckets=8)
    assert lengths == list(range(1, 41))
    assert len({mask.shape[1] for mask in masks}) == 8
    assert one_bucket == pytest.approx(0.4875)
    assert many < 0.1
    # A bucket has at least one batch.
    _, masks, _ = padding(num_buckets=1000)
    assert len(masks) == 8
    # Without shuffling, batches keep their order.
    _, masks, _ = padding(shuffle=False, num_buckets=4)
    assert {mask.shape[1] for mask in masks} <= {10, 20, 30, 40}
    # Incomplete batches of a bucket are dropped.
    _, masks, lengths = padding(num_buckets=3, drop_remainder=True)
    assert {len(mask) for mask in masks} == {5}
    assert len(lengths) == 30


def test_buckets_are_shuffled_by_the_seed(notes):
    def epochs(seed):
        dataset = read_folder(notes, AudioPreprocessor(8000), 5, seed=seed).dataset
        return [
            [tuple(inputs["audio_mask"].sum(1)) for inputs, _ in _batches(dataset)]
            for _ in range(2)
        ]

    (first, second), (again, _), (other, _) = epochs(0), epochs(0), epochs(1)
    assert first == again
    assert first not in (second, other)
    # Neither sorted by length nor by class.
    assert first != sorted(first)


def test_fixed_length_with_a_mask(notes):
    read = read_folder(
        notes, AudioPreprocessor(8000, 30, use_mask=True), 40, shuffle=False
    )
    [(inputs, _)] = _batches(read.dataset)
    assert inputs["audio"].shape == (40, 30)
    lengths = np.array([int(path.stem) for path in read.paths])
    np.testing.assert_array_equal(
        inputs["audio_mask"], np.arange(30) < lengths[:, None]
    )


@pytest.fixture
def both(tmp_path, images):
    for seed in range(6):  # the seventh image has no audio
        name = "cat" if seed < 4 else "dog"
        write_audio(tmp_path / "sounds" / name / f"{seed}.wav", 5 + seed, seed=seed)
    return {"picture": images, "sound": tmp_path / "sounds"}


def test_modalities_are_joined_by_class_and_name(both):
    (both["picture"] / "dog" / "6.png").unlink()
    files = {"picture": IMAGES, "sound": AudioPreprocessor(8000, 5)}
    read = read_folder(both, files, batch_size=6, shuffle=False)
    [(inputs, labels)] = _batches(read.dataset)
    assert inputs.keys() == {"picture", "sound"}
    for row, paths in enumerate(read.paths):
        assert paths["picture"].stem == paths["sound"].stem == str(row)
        for name, reader in files.items():
            np.testing.assert_array_equal(inputs[name][row], reader.read(paths[name]))
    np.testing.assert_array_equal(labels, [0] * 4 + [1] * 2)


def test_modalities_in_one_folder_differ_in_their_extensions(images):
    for seed in range(7):
        name = "cat" if seed < 4 else "dog"
        write_audio(images / name / f"{seed}.wav", seed=seed)
    read = read_folder(
        images, {"image": IMAGES, "audio": AudioPreprocessor(8000, 20)}, 7
    )
    [(inputs, _)] = _batches(read.dataset)
    assert {name: x.shape for name, x in inputs.items()} == {
        "image": (7, 6, 8, 3),
        "audio": (7, 20),
    }


def test_missing_modality_is_masked(both):
    files = {"picture": IMAGES, "sound": AudioPreprocessor(8000)}
    with pytest.raises(ValueError, match=r"6.png without \['sound'\].*allow_missing"):
        read_folder(both, files, 7)
    read = read_folder(both, files, 7, allow_missing=True, shuffle=False)
    [(inputs, labels)] = _batches(read.dataset)
    assert inputs["picture"].shape == (7, 6, 8, 3)
    assert inputs["picture_mask"].shape == (7, 6, 8)
    assert inputs["picture_mask"].all()
    np.testing.assert_array_equal(inputs["sound_mask"].sum(1), [5, 6, 7, 8, 9, 10, 0])
    assert not inputs["sound"][6].any()
    np.testing.assert_array_equal(labels, [0] * 4 + [1] * 3)
    assert read.paths[6].keys() == {"picture"}
    with pytest.warns(UserWarning, match="Bad files skipped: 1, examples read: 6"):
        read = read_folder(both, files, 7, skip_bad_files=True)
    assert len(read.paths) == 6


def test_two_lengths_share_their_buckets(tmp_path):
    for i in range(24):
        write_audio(tmp_path / "a" / f"{i:02}.wav", 10 + i)
        write_points(tmp_path / "a" / f"{i:02}.npy", 100 - i)
    files = {
        "audio": AudioPreprocessor(8000),
        "points": PointCloudPreprocessor(use_unit_cube=False),
    }
    for shuffle in (True, False):
        read = read_folder(tmp_path, files, 4, num_buckets=3, shuffle=shuffle)
        seen = []
        for inputs, _ in _batches(read.dataset):
            num_samples = inputs["audio_mask"].sum(1)
            np.testing.assert_array_equal(
                inputs["points_mask"].sum(1), 110 - num_samples
            )
            seen += list(num_samples)
        assert sorted(seen) == list(range(10, 34))


def _add_empty_class(folder):
    (folder / "horse").mkdir()
    return folder / "horse"


def _add_truncated(folder):
    path = folder / "cat" / "9.png"
    write_image(path)
    cut(path, 50)
    return path


def _add_grey(folder):
    path = folder / "dog" / "9.png"
    write_image(path, (6, 8, 1))
    return path


BAD = [_add_empty_class, _add_truncated, _add_grey]


@pytest.mark.parametrize("add", BAD)
def test_bad_file_is_an_error_before_training(images, add):
    path = add(images)
    with pytest.raises(ValueError, match=r"Received: .*skip_bad_files=True") as error:
        read_folder(images, IMAGES, 7)
    assert f"in {path}. " in str(error.value)


def test_bad_files_are_skipped_and_counted(images):
    paths = {add(images) for add in BAD}
    with pytest.warns(UserWarning, match="Bad files skipped: 3, examples read: 7"):
        read = read_folder(images, IMAGES, 7, skip_bad_files=True)
    assert {path for path, _ in read.skipped} == paths
    assert all(str(path) in reason for path, reason in read.skipped)
    # An empty class remains, since labels must not depend on skipped files.
    assert read.class_names == ("cat", "dog", "horse")
    inputs, _ = _epoch(read.dataset)
    assert len(inputs) == 7


def test_unchecked_bad_file_is_named_when_it_is_read(images):
    path = _add_truncated(images)
    read = read_folder(images, IMAGES, 4, check_files=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"in {path}. "):
        _batches(read.dataset)


def test_bad_file_of_one_modality_skips_the_example(both):
    (both["picture"] / "dog" / "6.png").unlink()
    cut(both["sound"] / "cat" / "2.wav", 3)
    files = {"picture": IMAGES, "sound": AudioPreprocessor(8000)}
    with pytest.warns(UserWarning, match="Bad files skipped: 1"):
        read = read_folder(both, files, 7, skip_bad_files=True)
    assert [paths["sound"].stem for paths in read.paths] == ["0", "1", "3", "4", "5"]


class FickleReader(ImagePreprocessor):
    """A user-defined preprocessor that raises arbitrary errors."""

    def read(self, path):
        if path.stem == "1":
            raise IndexError("list index out of range")
        if path.stem == "2":
            raise MemoryError
        return super().read(path)


def test_errors_of_any_class_are_bad_files(images):
    reader = FickleReader((6, 8, 3))
    with pytest.raises(ValueError, match=r"list index out of range in .*cat.1.png. "):
        read_folder(images, reader, 7)
    with pytest.warns(UserWarning, match="Bad files skipped: 2, examples read: 5"):
        read = read_folder(images, reader, 7, skip_bad_files=True)
    assert [path.stem for path, _ in read.skipped] == ["1", "2"]
    assert all(str(path) in reason for path, reason in read.skipped)


def _remove(path):
    path.unlink()


def _replace_by_text(path):
    path.write_text("hello")


@pytest.mark.parametrize("change", [_remove, _replace_by_text])
@pytest.mark.parametrize("drop_remainder", [False, True])
def test_files_that_change_after_they_were_checked(images, change, drop_remainder):
    options = {"shuffle": False, "drop_remainder": drop_remainder}
    bad = images / "cat" / "1.png"
    read = read_folder(images, IMAGES, 3, skip_bad_files=True, **options)
    strict = read_folder(images, IMAGES, 3, **options)
    change(bad)
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"in {bad}. "):
        _batches(strict.dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        epochs = [_batches(read.dataset) for _ in range(2)]
    # It is dropped, or replaced by another example of its batch.
    sizes = [3, 3] if drop_remainder else [2, 3, 1]
    for batches in epochs:
        assert [len(labels) for _, labels in batches] == sizes
        expected = [IMAGES.read(images / "cat" / f"{i}.png") for i in (0, 2)]
        np.testing.assert_array_equal(batches[0][0][:2], expected)
    assert [path for path, _ in read.skipped] == [bad]
    assert str(bad) in read.skipped[0][1]


def test_a_file_that_has_become_longer(notes):
    path = notes / "short" / "07.wav"
    read = read_folder(notes, AudioPreprocessor(8000), 5, skip_bad_files=True)
    write_audio(path, 39)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert sum(len(labels) for _, labels in _batches(read.dataset)) == 39
    assert read.skipped[0][0] == path
    assert "length 39 instead of 7" in read.skipped[0][1]


def test_two_files_of_one_name(both):
    (both["picture"] / "dog" / "6.png").unlink()
    write_image(both["picture"] / "cat" / "1.bmp")
    files = {"picture": IMAGES, "sound": AudioPreprocessor(8000)}
    with pytest.raises(ValueError, match=r"1.png and 1.bmp.*Remove or rename"):
        read_folder(both, files, 7)
    # With one modality there is nothing to join.
    assert len(read_folder(both["picture"], IMAGES, 7).paths) == 7


def test_many_files_show_progress(images, monkeypatch, capsys):
    read_folder(images, IMAGES, 7)
    assert not capsys.readouterr().out
    monkeypatch.setattr(folders, "_CHECKED_AT_ONCE", 3)
    read = read_folder(images, IMAGES, 7)
    assert "7/7" in capsys.readouterr().out
    assert len(read.paths) == 7


def test_cache_reads_every_file_once(images, monkeypatch):
    num_reads = []
    original = ImagePreprocessor.read

    def counted(self, path):
        num_reads.append(path)
        return original(self, path)

    monkeypatch.setattr(ImagePreprocessor, "read", counted)
    for use_cache, expected in ((True, 7), (False, 21)):
        num_reads.clear()
        read = read_folder(images, IMAGES, 3, use_cache=use_cache)
        epochs = [_epoch(read.dataset) for _ in range(2)]
        assert len(num_reads) == expected
        assert (epochs[0][0] != epochs[1][0]).any()
    num_reads.clear()
    read = read_folder(images, IMAGES, 3, check_files=False, use_cache=True)
    for _ in range(2):
        _epoch(read.dataset)
    assert len(num_reads) == 7


def test_split_is_fixed_stratified_and_disjoint(tmp_path):
    for label, count in (("a", 10), ("b", 5), ("c", 2), ("d", 1)):
        for i in range(count):
            write_array(tmp_path / label / f"{i}.npy", np.random.normal(size=(4, 3)))
    read = read_folder(tmp_path, PointCloudPreprocessor(4), 4, drop_remainder=True)
    train, validation = read.split(0.2)
    assert sorted(train.paths + validation.paths) == sorted(read.paths)
    counts = {n: [p.parent.name for p in validation.paths].count(n) for n in "abcd"}
    assert counts == {"a": 2, "b": 1, "c": 1, "d": 0}
    again = read_folder(tmp_path, PointCloudPreprocessor(4), 3, seed=7).split(0.2)
    assert (again[0].paths, again[1].paths) == (train.paths, validation.paths)
    assert train.class_names == validation.class_names == read.class_names
    # Training data are shuffled and drop their remainder. Validation data are complete
    # and in order.
    assert int(train.dataset.cardinality()) == 3
    inputs, labels = _epoch(validation.dataset)
    np.testing.assert_array_equal(
        inputs, [PointCloudPreprocessor(4).read(path) for path in validation.paths]
    )
    assert list(labels) == [0, 0, 1, 2]
    assert (_epoch(train.dataset)[0] != _epoch(train.dataset)[0]).any()


def test_split_keeps_groups_together(tmp_path):
    for i in range(20):
        write_array(tmp_path / "a" / f"{i:02}.npy", np.ones((4, 3)))
    read = read_folder(tmp_path, PointCloudPreprocessor(4), 4)
    train, validation = read.split(0.3, group=lambda stem: int(stem) // 5)

    def groups(part):
        return {int(path.stem) // 5 for path in part.paths}

    assert len(groups(validation)) == 1
    assert len(validation.paths) == 5
    assert not groups(train) & groups(validation)
    with pytest.raises(ValueError, match="one group in each of 1 classes"):
        read.split(0.3, group=lambda stem: "")
    with pytest.raises(ValueError, match="must be in .0, 1.*=0.0"):
        read.split(0.0)


def test_video_folder(tmp_path):
    frames = write_video(tmp_path / "a" / "0.npy")
    read = read_folder(tmp_path, VideoPreprocessor((3, 4, 6, 2)), 1)
    video, _ = _epoch(read.dataset)
    np.testing.assert_allclose(video[0], frames / 127.5 - 1, atol=1e-6)


def test_policy_does_not_reach_the_data(images):
    keras.config.set_dtype_policy("mixed_bfloat16")
    x, _ = _epoch(read_folder(images, ImagePreprocessor((5, 5, 3)), 7).dataset)
    assert x.dtype == "float32"


def test_a_model_reads_it(images):
    encoder = kp.Perceiver(
        kp.Image((6, 8, 3), num_bands=2),
        num_latents=4,
        latent_dim=8,
        num_blocks=1,
        num_self_attends_per_block=1,
        self_attend=kp.SelfAttend(num_heads=2),
    )
    model = kp.PerceiverClassifier(encoder, num_classes=2)
    read = read_folder(images, IMAGES, batch_size=3, shuffle=False)
    images = np.stack([IMAGES.read(path) for path in read.paths])
    np.testing.assert_allclose(
        model.predict(read.dataset, verbose=0),
        model.predict(images, verbose=0),
        atol=1e-5,
    )


def _bad_arguments(images):
    yield "same modalities.*one folder per", {"image": images}, {"i": IMAGES}, {}
    yield "`batch_size` must be a positive", images, IMAGES, {"batch_size": 0}
    yield "`num_buckets` must be a positive", images, IMAGES, {"num_buckets": 0}
    yield (
        "need `check_files=True`.*False, skip_bad_files=True.*Set `check_files=True`",
        images,
        IMAGES,
        {"check_files": False, "skip_bad_files": True},
    )
    yield (
        "variable length.*lengths",
        images,
        PointCloudPreprocessor(),
        {"check_files": False},
    )
    yield "<folder>/<class>/<file>", images / "cat", IMAGES, {}
    yield r"none of \['.aif'.* in .*cat", images, AudioPreprocessor(8000), {}


def test_bad_arguments(images):
    for message, folder, files, options in _bad_arguments(images):
        with pytest.raises(ValueError, match=message):
            read_folder(folder, files, **{"batch_size": 2, **options})
    with pytest.raises(
        ValueError,
        match=r"valid file to read.*2 skipped.*Ignored.*with extension '.png' \(7\)",
    ):
        read_folder(images, AudioPreprocessor(8000), 2, skip_bad_files=True)
    with pytest.raises(FileNotFoundError, match=r"not a folder. Correct the path"):
        read_folder(images / "horse", IMAGES, 2)
    for files in (ImagePreprocessor, {"image": "png"}):
        with pytest.raises((TypeError), match=r"must be a `Preprocessor`.*Pass"):
            read_folder(images, files, 2)


class TextPreprocessor(Preprocessor):
    """A user-defined preprocessor: text as character codes."""

    input_name = "text"
    suffixes = (".txt",)
    shape = (None,)
    dtype = "int32"
    use_mask = True

    def decode(self, content, suffix=""):
        return np.frombuffer(content, "uint8")


def test_own_preprocessor(tmp_path):
    write_bytes(tmp_path / "a" / "0.txt", b"hello")
    write_bytes(tmp_path / "a" / "1.txt", b"hi")
    read = read_folder(tmp_path, TextPreprocessor(), 2, shuffle=False)
    [(inputs, _)] = _batches(read.dataset)
    np.testing.assert_array_equal(inputs["text_mask"].sum(1), [5, 2])
    assert inputs["text"].dtype == "int32"
    assert bytes(inputs["text"][0].astype("uint8")) == b"hello"


def test_text_files_are_points(tmp_path):
    write_bytes(tmp_path / "a" / "0.xyz", b"0 0 0\n1 2 3\n")
    read = read_folder(str(tmp_path), PointCloudPreprocessor(use_unit_cube=False), 1)
    [(inputs, _)] = _batches(read.dataset)
    np.testing.assert_array_equal(inputs["points"], [[[0, 0, 0], [1, 2, 3]]])
