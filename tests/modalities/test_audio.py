import keras
import numpy as np
import pytest

from keras_perceiver import Audio, LearnedPositionEncoding, MelSpectrogram
from tests import contracts, reference


def _numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x))


def _sounds(length, batch=2):
    return np.random.default_rng(0).uniform(-1, 1, (batch, length)).astype("float32")


def _mel(**settings):
    settings = {
        "num_samples": 130,
        "sample_rate": 1000,
        "num_mel_bins": 6,
        "frame_length": 32,
        "frame_step": 20,
        "num_bands": 2,
        **settings,
    }
    return MelSpectrogram(**settings)


@pytest.mark.parametrize("use_mask", [False, True])
def test_audio_contract(use_mask):
    config = {
        "num_samples": 42,
        "sample_rate": 8000,
        "patch_size": 5,
        "num_bands": 3,
        "max_resolution": 7,
        "use_mask": use_mask,
    }
    sounds = _sounds(31 if use_mask else 42)
    unknown = (0,) if use_mask else ()
    contracts.check_layer(Audio, config, sounds, unknown_length=unknown)


@pytest.mark.parametrize(
    "use_mask",
    [
        pytest.param(False, marks=pytest.mark.fast_on("torch")),
        pytest.param(True, marks=pytest.mark.fast_on("tensorflow", "torch")),
    ],
)
def test_mel_contract(use_mask):
    def config():
        return {
            "num_samples": 130,
            "sample_rate": 1000,
            "num_mel_bins": 6,
            "frame_length": 32,
            "frame_step": 20,
            "min_frequency": 10.0,
            "max_frequency": 450.0,
            "patch_size": (2, 3),
            "position_encoding": LearnedPositionEncoding(5),
            "use_mask": use_mask,
        }

    sounds = _sounds(90 if use_mask else 130)
    unknown = (0,) if use_mask else ()
    contracts.check_layer(MelSpectrogram, config, sounds, unknown_length=unknown)


def test_the_papers_audio():
    audio = Audio(61_440, sample_rate=48_000)
    assert audio.grid == (480,)
    assert audio.duration == 1.28
    # Frames and bins are our choice. Their product is the paper's.
    assert MelSpectrogram(61_440, 48_000).num_inputs == 4_800


def test_samples_in_groups_padded_with_zeros():
    sounds = _sounds(11)
    elements = _numpy(Audio(11, 8000, patch_size=4, num_bands=2)(sounds))
    padded = np.pad(sounds, [(0, 0), (0, 1)]).reshape(2, 3, 4)
    np.testing.assert_array_equal(elements[..., :4], padded)
    expected = reference.fourier_features((3,), 2, (3,))
    np.testing.assert_allclose(elements[1, :, 4:], expected, atol=1e-6)


@pytest.mark.fast_on("tensorflow", "torch")
@pytest.mark.parametrize(
    "make",
    [
        lambda: Audio(42, 8000, patch_size=4, num_bands=2, use_mask=True),
        lambda: _mel(num_samples=90, patch_size=(2, 3), use_mask=True),
    ],
)
def test_a_shorter_batch_changes_nothing_but_the_padding(make):
    layer = make()
    sounds, mask = _sounds(layer.num_samples), np.zeros((2, layer.num_samples), bool)
    mask[:, :26] = True
    sounds[:, 26:] = np.nan
    whole = _numpy(layer(sounds, inputs_mask=mask))
    keep = _numpy(layer.elements_mask(mask))
    assert keep.shape == whole.shape[:2]
    short = _numpy(layer(sounds[:, :26], inputs_mask=mask[:, :26]))
    assert short.shape[1] < whole.shape[1]
    assert _numpy(layer.elements_mask(mask[:, :26])).all()
    np.testing.assert_array_equal(keep[0], np.arange(whole.shape[1]) < short.shape[1])
    np.testing.assert_allclose(short, whole[:, : short.shape[1]], atol=1e-5)
    assert np.isfinite(whole).all()


def test_mel_spectrogram_equals_float64_reference():
    sounds = _sounds(130)
    sounds[1, 60:] *= 1e-3
    layer = _mel(min_frequency=15.0, max_frequency=480.0)
    elements = _numpy(layer(sounds))
    expected = reference.mel_spectrogram(
        sounds, 1000, num_mel_bins=6, length=32, step=20, lowest=15.0, highest=480.0
    )
    np.testing.assert_allclose(
        elements[..., 0], expected.reshape(2, -1), rtol=1e-4, atol=1e-5
    )
    positions = reference.fourier_features((7, 6), 2, (7, 6))
    np.testing.assert_allclose(elements[0, :, 1:], positions, atol=1e-6)


@pytest.mark.fast_on("tensorflow", "torch")
def test_mel_patches_are_frames_by_bins():
    sounds = _sounds(130)
    points = _numpy(_mel()(sounds))[..., 0].reshape(2, 7, 6)
    # The eighth frame is padded with silence.
    points = np.concatenate([points, np.full((2, 1, 6), -1.0)], axis=1)
    patches = _numpy(_mel(patch_size=(2, 3))(sounds))[..., :6]
    expected = points.reshape(2, 4, 2, 2, 3).transpose(0, 1, 3, 2, 4).reshape(2, 8, 6)
    np.testing.assert_allclose(patches, expected, atol=1e-6)


def test_mel_scale_goes_from_silence_to_a_full_tone():
    layer = _mel(num_samples=8000, sample_rate=8000, frame_length=400, frame_step=400)
    center = _numpy(layer(np.zeros((1, 8000), "float32")))[..., 0]
    np.testing.assert_allclose(center, -1, atol=1e-6)
    tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)[None].astype("float32")
    loudest = _numpy(layer(tone))[..., 0].max()
    assert 0.9 < loudest < 1.1


def test_loud_neighbors_have_no_influence():
    sounds = _sounds(130) * np.array([[1e-3], [1.0]], "float32")
    together = _numpy(_mel()(sounds))
    np.testing.assert_allclose(_numpy(_mel()(sounds[:1])), together[:1], atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Audio(0, 8000), "`num_samples` must be a positive integer"),
        (lambda: Audio(10, 8000, patch_size=0), "`patch_size` must be a positive"),
        (lambda: Audio(10, 8000)(_sounds(9)), r"with 10 samples.*\(2, 9\).*Crop, pad"),
        (lambda: Audio(10, 8000, use_mask=True)(_sounds(11)), "up to 10 samples"),
        (lambda: _mel(frame_step=33), "`frame_step` must not exceed"),
        (lambda: _mel(patch_size=(1, 4)), "`num_mel_bins` must be a multiple"),
        (lambda: _mel(max_frequency=501), "frequencies that audio of this rate has"),
        (lambda: _mel(num_mel_bins=40), "Every mel bin must contain a frequency"),
        (lambda: _mel(time_masks=(1, 2, 3)), "`time_masks` must be a pair"),
        (lambda: _mel(time_masks=(0, 2)), r"`time_masks\[0\]` must be a positive"),
        (lambda: _mel(frequency_masks=(1, 7)), "must not be longer than the spectro"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("patch_size", [1, (2, 3)])
@pytest.mark.fast_on("torch")
def test_spec_augment_masks_spans_in_training_only(patch_size):
    def values(layer, training):
        elements = _numpy(layer(sounds, training=training))
        num_values = 1 if patch_size == 1 else 6
        values = elements[..., :num_values]
        if patch_size == 1:
            return values.reshape(-1, 7, 6)
        patches = values.reshape(-1, 4, 2, 2, 3).transpose(0, 1, 3, 2, 4)
        return patches.reshape(-1, 8, 6)[:, :7]

    sounds = _sounds(130, batch=40)
    plain = values(_mel(patch_size=patch_size), False)
    assert plain.min() > -0.9
    layer = _mel(patch_size=patch_size, time_masks=(2, 2), seed=1)
    np.testing.assert_array_equal(values(layer, False), plain)
    hidden = values(layer, True)
    is_hidden = hidden == -1
    np.testing.assert_array_equal(hidden[~is_hidden], plain[~is_hidden])
    frames = is_hidden.all(axis=2)
    assert (frames == is_hidden.any(axis=2)).all()  # whole frames
    # Two spans of 0, 1 or 2 frames mask two on average if they do not overlap.
    assert 1.2 < frames.sum(axis=1).mean() < 2.2
    assert set(frames.sum(axis=1)) == {0, 1, 2, 3, 4}
    assert (values(layer, True) != hidden).any()

    again = _mel(patch_size=patch_size, time_masks=(2, 2), seed=1)
    np.testing.assert_array_equal(values(again, True), hidden)
    other = _mel(patch_size=patch_size, frequency_masks=(1, 6), seed=1)
    bins = values(other, True) == -1
    assert (bins.all(axis=1) == bins.any(axis=1)).all()
    assert set(bins.all(axis=1).sum(axis=1)) == set(range(7))


def test_spec_augment_contract():
    config = {
        "num_samples": 130,
        "sample_rate": 1000,
        "num_mel_bins": 6,
        "frame_length": 32,
        "frame_step": 20,
        "num_bands": 2,
        "time_masks": (2, 3),
        "frequency_masks": (1, 2),
        "seed": 5,
    }
    contracts.check_layer(MelSpectrogram, config, _sounds(130))
