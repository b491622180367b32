"""Audio files of all formats against soundfile."""

import builtins
import io
import struct

import numpy as np
import pytest
import soundfile

from keras_perceiver import AudioPreprocessor
from tests.modalities.preprocessors.checks import graph_form

pytestmark = pytest.mark.one_backend

RATE = 8000
TONE = (0.9 * np.sin(np.arange(4000) / 7)).astype("float32")


def _file(format, subtype, samples=TONE, rate=RATE):
    content = io.BytesIO()
    soundfile.write(content, samples, rate, format=format, subtype=subtype)
    return content.getvalue()


def _read(content, **options):
    return AudioPreprocessor(RATE, **options).read_content(content)


FORMATS = [
    *[("WAV", subtype) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32")],
    *[("WAV", subtype) for subtype in ("FLOAT", "DOUBLE", "ULAW")],
    *[("WAVEX", "PCM_16"), ("WAVEX", "PCM_24"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24")],
    *[("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")],
    *[("AIFF", "PCM_16"), ("AIFF", "FLOAT")],
]
# Formats that both the host and TensorFlow read.
IN_GRAPH = [("WAV", "PCM_16"), ("WAVEX", "PCM_16")]


@pytest.mark.parametrize(("format", "subtype"), FORMATS)
def test_samples_are_those_of_soundfile(format, subtype):
    content = _file(format, subtype)
    read = _read(content)
    expected, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    np.testing.assert_allclose(read, np.clip(expected, -1, 1), atol=1e-6)
    tolerance = {"PCM_U8": 0.01, "ULAW": 0.02, "PCM_16": 1e-4}.get(subtype, 1e-6)
    if format not in ("OGG", "MP3"):
        np.testing.assert_allclose(read, TONE, atol=tolerance)
    samples, error = graph_form(AudioPreprocessor(RATE))(content)
    if (format, subtype) in IN_GRAPH:
        assert error.numpy() == b""
        np.testing.assert_array_equal(samples, read)
    else:
        assert b"if TensorFlow decodes it" in error.numpy()


@pytest.mark.parametrize(("format", "subtype"), FORMATS)
def test_files_that_are_cut_are_errors(format, subtype, tmp_path):
    content = _file(format, subtype)
    path = tmp_path / "a.wav"
    for num_bytes in (2, 100, len(content) // 2):
        path.write_bytes(content[:-num_bytes])
        with pytest.raises(ValueError, match=f"in {path}. "):
            AudioPreprocessor(RATE).read(path)


S16 = np.arange(32, dtype="<i2").tobytes()
FMT = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
EXTENSIBLE = (
    b"\xfe\xff"
    + FMT[2:]
    + struct.pack("<HHI", 22, 16, 4)
    + bytes.fromhex("0100000000001000800000aa00389b71")
)


def _chunk(name, data, size=None):
    size = len(data) if size is None else size
    return name + struct.pack("<I", size) + data + b"\0" * (len(data) % 2)


def _wav(*chunks):
    body = b"WAVE" + b"".join(chunks)
    return _chunk(b"RIFF", body)


WAVS = {
    "plain": _wav(_chunk(b"fmt ", FMT), _chunk(b"data", S16)),
    "a chunk of odd size": _wav(
        _chunk(b"fmt ", FMT),
        _chunk(b"LIST", b"INFOISFT" + b"x" * 17),
        _chunk(b"data", S16),
    ),
    "EXTENSIBLE": _wav(_chunk(b"fmt ", EXTENSIBLE), _chunk(b"data", S16)),
    "18 bytes of format": _wav(_chunk(b"fmt ", FMT + b"\0\0"), _chunk(b"data", S16)),
    "chunks behind": _wav(
        _chunk(b"fmt ", FMT), _chunk(b"data", S16), _chunk(b"LIST", b"INFO")
    ),
    "the samples first": _wav(_chunk(b"data", S16), _chunk(b"fmt ", FMT)),
    "of a pipe": _wav(_chunk(b"fmt ", FMT), _chunk(b"data", S16, 2**32 - 1)),
}
BAD_WAVS = {
    "cut": (WAVS["plain"][:-10], "54 bytes of 64"),
    "cut before the samples": (WAVS["plain"][:-70], "no bytes of samples"),
    "without samples": (_wav(_chunk(b"fmt ", FMT)), "no bytes of samples"),
    "interrupted": (_wav(_chunk(b"fmt ", FMT), _chunk(b"data", b"")), "length 0"),
    "stereo": (
        _wav(_chunk(b"fmt ", FMT[:2] + b"\2" + FMT[3:]), _chunk(b"data", S16)),
        "2 ch",
    ),
}


@pytest.mark.parametrize("content", WAVS.values(), ids=WAVS)
def test_chunks_of_wav_files(content):
    expected = np.arange(32, dtype="float32") / 2**15
    np.testing.assert_array_equal(_read(content), expected)
    samples, error = graph_form(AudioPreprocessor(RATE))(content)
    assert error.numpy() == b""
    np.testing.assert_array_equal(samples, expected)


@pytest.mark.parametrize(("content", "message"), BAD_WAVS.values(), ids=BAD_WAVS)
def test_bad_wav_files_have_one_error(content, message):
    with pytest.raises(ValueError, match=message):
        _read(content)
    _, error = graph_form(AudioPreprocessor(RATE))(content)
    assert message in error.numpy().decode()


def test_samples_beyond_full_scale():
    for format, subtype in (("WAV", "FLOAT"), ("OGG", "VORBIS"), ("MP3", None)):
        read = _read(_file(format, subtype, 1.3 * TONE))
        assert np.abs(read).max() == 1
    with pytest.raises(ValueError, match=r"in -1..1.*peak of 2.949e\+04. Divide"):
        _read(_file("WAV", "FLOAT", 2**15 * TONE))
    for bad in (np.nan, np.inf):
        samples = np.where(np.arange(4000) == 7, bad, TONE)
        with pytest.raises(ValueError, match="must be finite"):
            _read(_file("WAV", "FLOAT", samples))


def test_other_rates_are_resampled():
    at_16k = (0.9 * np.sin(np.arange(8000) / 14)).astype("float32")
    for subtype in ("PCM_16", "FLOAT"):
        content = _file("WAV", subtype, at_16k, 2 * RATE)
        with pytest.raises(
            ValueError, match="8000` hertz.*sample_rate=16000.*resample=Tr"
        ):
            _read(content)
        read = _read(content, resample=True)
        assert read.shape == TONE.shape
        np.testing.assert_allclose(read[50:-50], TONE[50:-50], atol=1e-3)
    content = _file("FLAC", "PCM_16")
    np.testing.assert_array_equal(_read(content, resample=True), _read(content))
    # A graph does not resample.
    preprocessor = AudioPreprocessor(2 * RATE, resample=True)
    _, error = graph_form(preprocessor)(WAVS["plain"])
    assert b"sample_rate=8000. Resample the file" in error.numpy()


def test_the_number_of_samples_is_limited():
    for content in (
        _file("WAV", "PCM_16"),
        _file("FLAC", "PCM_16"),
        _file("MP3", None),
    ):
        assert len(_read(content, max_samples=4000)) == 4000
        with pytest.raises(ValueError, match="`max_samples=3999` samples.*4000. Split"):
            _read(content, max_samples=3999)
    with pytest.raises(ValueError, match="max_samples=6000.*8000"):
        AudioPreprocessor(2 * RATE, resample=True, max_samples=6000).read_content(
            _file("WAV", "PCM_16")
        )
    # A wrong number in the header allocates nothing.
    lie = bytearray(_file("FLAC", "PCM_16"))
    lie[21] |= 15
    with pytest.raises(ValueError, match=r"max_samples=.*6442\d+. Split"):
        _read(bytes(lie))


def test_other_content():
    for content in (b"", b"hello", b"%PDF-1.7", _file("AU", "PCM_16")):
        with pytest.raises(ValueError, match="must be WAV, FLAC, OGG, MP3 or AIFF"):
            _read(content)


@pytest.mark.parametrize("name", ["soundfile", "soxr"])
def test_missing_libraries_name_the_extra(name, monkeypatch, tmp_path):
    real_import = builtins.__import__

    def without(wanted, *args, **kwargs):
        if wanted == name:
            raise ImportError(wanted)
        return real_import(wanted, *args, **kwargs)

    content = _file("WAV", "PCM_24", rate=2 * RATE)
    (tmp_path / "a.wav").write_bytes(content)
    (tmp_path / "b.wav").write_bytes(WAVS["EXTENSIBLE"])
    (tmp_path / "c.wav").write_bytes(b"hello")
    monkeypatch.setattr(builtins, "__import__", without)
    preprocessor = AudioPreprocessor(RATE, resample=True)
    with pytest.raises(
        ImportError, match=rf"{name}.*install .keras_perceiver\[audio\]"
    ):
        preprocessor.read(tmp_path / "a.wav")
    # 16-bit WAV needs neither, and an invalid file is still an error.
    assert preprocessor.read(tmp_path / "b.wav").shape == (32,)
    with pytest.raises(ValueError, match="must be WAV.*c.wav"):
        preprocessor.read(tmp_path / "c.wav")
