import numpy as np
import pytest
import tensorflow as tf

from keras_perceiver import (
    Audio,
    AudioPreprocessor,
    Image,
    ImagePreprocessor,
    PointCloud,
    PointCloudPreprocessor,
    Preprocessor,
    Sequence,
)
from keras_perceiver.modalities.preprocessors import FileRule, first_error
from keras_perceiver.modalities.preprocessors.base import padded, preprocessors_by_name

pytestmark = pytest.mark.one_backend

IMAGE = ImagePreprocessor((6, 8, 3))


def _modalities():
    return {
        "picture": Image((None, 8, 3), max_resolution=8),
        "sound": Audio(40, 8000, use_mask=True),
        "points": PointCloud(use_mask=True),
    }


def test_names_are_those_of_the_modalities_in_their_order():
    assert preprocessors_by_name(None, _modalities()) == {}
    given = {"points": PointCloudPreprocessor(), "picture": IMAGE}
    found = preprocessors_by_name(given, _modalities())
    assert list(found) == ["picture", "points"]
    assert found == given
    one = {"picture": _modalities()["picture"]}
    assert preprocessors_by_name(IMAGE, one) == {"picture": IMAGE}


@pytest.mark.parametrize(
    ("preprocessor", "error", "message"),
    [
        (IMAGE, ValueError, "several modalities needs a dict.*by modality name"),
        ({"picture": "png"}, TypeError, "must be a `Preprocessor`.*'png'.*Pass"),
        ({"image": IMAGE}, ValueError, r"one of the modalities \['picture', .*'image'"),
        (
            {"picture": ImagePreprocessor((6, 9, 3))},
            ValueError,
            r"shape \(6, 9, 3\) for \(None, 8, 3\)\. Change",
        ),
        (
            {"sound": AudioPreprocessor(16_000, 40)},
            ValueError,
            "'sound', sample_rate=16000 for 8000",
        ),
        (
            {"sound": AudioPreprocessor(8000, 41)},
            ValueError,
            r"shape \(41,\) for \(None,\)",
        ),
        ({"points": IMAGE}, ValueError, r"shape \(6, 8, 3\) for \(None, 3\)"),
    ],
)
def test_preprocessors_that_do_not_fit_are_refused(preprocessor, error, message):
    with pytest.raises(error, match=message):
        preprocessors_by_name(preprocessor, _modalities())


def test_masks_and_dtypes_must_fit():
    points = {"points": PointCloud()}
    with pytest.raises(ValueError, match="a mask where the modality has `use_mask=Fal"):
        preprocessors_by_name(PointCloudPreprocessor(), points)

    class Floats(Preprocessor):
        shape = (9,)

    text = {"text": Sequence(9, 7, 5)}
    with pytest.raises(ValueError, match="dtype float32 for int32"):
        preprocessors_by_name(Floats(), text)


def test_a_preprocessor_without_its_methods_names_them(tmp_path):
    class Empty(Preprocessor):
        shape = (None, 2)

    with pytest.raises(NotImplementedError, match="define `decode`.*Empty"):
        Empty().decode(b"")
    with pytest.raises(NotImplementedError, match="define `random_file`.*Empty"):
        Empty().write_random(tmp_path / "a", np.random.default_rng(0))
    assert not Empty().has_graph_form


class Rows(Preprocessor):
    """Two numbers per row, as bytes."""

    suffixes = (".rows",)
    use_mask = True

    def __init__(self, length=None):
        self.shape = (length, 2)

    def decode(self, content, suffix=""):
        return np.frombuffer(content, "float32").reshape(-1, 2)


def test_rules_that_all_preprocessors_keep():
    read = Rows().read_content
    rows = np.arange(6, dtype="float32").reshape(3, 2)
    np.testing.assert_array_equal(read(rows.tobytes()), rows)
    with pytest.raises(ValueError, match="must not be empty.*length 0. Remove"):
        read(b"")
    rows[1, 0] = np.inf
    with pytest.raises(ValueError, match="must be finite.*NaN or infinite"):
        read(rows.tobytes())

    class Wide(Rows):
        def decode(self, content, suffix=""):
            return np.ones((4, 3))

    with pytest.raises(ValueError, match=r"shape \(any, 2\).*shape \(4, 3\)\. Convert"):
        Wide().read_content(b"")


def test_errors_of_any_class_name_the_file(tmp_path):
    (tmp_path / "a.rows").write_bytes(b"123")
    with pytest.raises(ValueError, match=r"invalid content .*in .*a\.rows\. Repair"):
        Rows().read(tmp_path / "a.rows")
    with pytest.raises(FileNotFoundError):
        Rows().read(tmp_path / "b.rows")


def test_padding():
    arrays = [np.ones((3, 2)), None, np.ones((1, 2))]
    batch, mask = padded(arrays, Rows(4))
    assert batch.shape == (3, 4, 2)
    assert mask.sum(axis=1).tolist() == [3, 0, 1]
    np.testing.assert_array_equal(batch.sum(axis=(1, 2)), [6, 0, 2])
    assert padded(arrays[:1], Rows())[0].shape == (1, 3, 2)
    assert padded(arrays, Rows(), 5)[0].shape == (3, 5, 2)


def test_rules_have_one_text_on_the_host_and_in_a_graph():
    rule = FileRule("Files must be small.", "{} of {} bytes", "Reduce it")
    rule.check(True, 1, 2)
    assert rule.error(tf.constant(True), tf.constant(1), tf.constant(2)) == b""
    with pytest.raises(
        ValueError, match=r"small\. Received: 5 of 2 bytes\. Reduce"
    ) as error:
        rule.check(False, 5, 2)
    in_graph = rule.error(tf.constant(False), tf.constant(5), tf.constant(2))
    assert in_graph.numpy().decode() == str(error.value)
    texts = [tf.constant(text) for text in ("", "first", "second")]
    assert first_error(*texts) == b"first"
