import numpy as np
import pytest
import tensorflow as tf

from keras_perceiver import AudioPreprocessor
from tests.data.files import cut, write_audio
from tests.modalities.preprocessors.checks import (
    check_bad_files,
    check_graph_form,
    check_preprocessor,
    check_rule,
    graph_form,
)

pytestmark = pytest.mark.one_backend


@pytest.mark.parametrize(
    "arguments",
    [
        {"sample_rate": 8000, "num_samples": 20},
        {"sample_rate": 16_000, "num_samples": 20, "use_mask": True},
        {"sample_rate": 8000, "resample": True, "max_samples": 99},
    ],
)
def test_contract(arguments, tmp_path):
    check_preprocessor(AudioPreprocessor(**arguments), tmp_path, max_length=20)


def test_waveforms(tmp_path):
    path = tmp_path / "a.wav"
    audio = write_audio(path, 20)
    np.testing.assert_allclose(AudioPreprocessor(8000).read(path), audio, atol=1e-4)
    cut_off = AudioPreprocessor(8000, 7).read(path)
    np.testing.assert_allclose(cut_off, audio[:7], atol=1e-4)
    assert AudioPreprocessor(8000, 25, use_mask=True).read(path).shape == (20,)


def _wav(tmp_path, *args, **options):
    write_audio(tmp_path / "a.wav", *args, **options)
    return (tmp_path / "a.wav").read_bytes()


def test_both_forms_give_the_same_samples(tmp_path):
    """All values of 16 bits, and lengths of both parities."""
    samples = np.arange(-(2**15), 2**15, dtype="float32") / 2**15
    whole = tf.audio.encode_wav(samples[:, None], 8000).numpy()
    contents = [whole, _wav(tmp_path, 1), _wav(tmp_path, 21)]
    check_graph_form(AudioPreprocessor(8000), contents)


def test_both_forms_keep_the_same_rules(tmp_path, subtests):
    for content, message in (
        (
            _wav(tmp_path, sample_rate=16_000),
            "8000` hertz.*sample_rate=16000. Resample",
        ),
        (_wav(tmp_path, channels=2), "must be mono.*2 channels. Mix"),
        (_wav(tmp_path, 0), "must not be empty.*length 0"),
        (_wav(tmp_path, 9), "not be shorter than 10. Received: length 9. Set"),
    ):
        with subtests.test(message=message):
            check_rule(AudioPreprocessor(8000, 10), content, message)


def test_other_content_in_the_graph():
    for content in (b"", b"hello", b"RIFF1234AVI and more"):
        _, error = graph_form(AudioPreprocessor(8000))(content)
        assert b"must be WAV files" in error.numpy()


def _cut(path):
    write_audio(path)
    cut(path, 3)


MONO = AudioPreprocessor(8000)
BAD_FILES = [
    (MONO, "a.wav", _cut, "all samples that its header declares.*37 bytes of 40"),
    (
        MONO,
        "a.wav",
        lambda path: path.parent.mkdir() or path.touch(),
        "must be WAV, FLAC",
    ),
    (
        MONO,
        "a.wav",
        lambda path: write_audio(path, sample_rate=16_000),
        "`sample_rate=8000` hertz.*sample_rate=16000.*Resample",
    ),
    (
        MONO,
        "a.wav",
        lambda path: write_audio(path, channels=2),
        "must be mono.*2 channels.*Mix",
    ),
    (MONO, "a.wav", lambda path: write_audio(path, 0), "length 0"),
    (
        AudioPreprocessor(8000, max_samples=19),
        "a.wav",
        write_audio,
        "at most `max_samples=19` samples.*20.*Split",
    ),
    (
        AudioPreprocessor(8000, 21),
        "a.wav",
        write_audio,
        "Without a mask.*shorter than 21.*length 20.*use_mask=True",
    ),
]


def test_bad_files_are_named(tmp_path, subtests):
    check_bad_files(BAD_FILES, tmp_path, subtests)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "`sample_rate` must be a positive"),
        ((8000, 0), "`num_samples` must be a positive"),
        ((8000, None, None, False, 0), "`max_samples` must be a positive"),
        ((8000, None, False), "need a mask.*Set `num_samples`"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        AudioPreprocessor(*arguments)
