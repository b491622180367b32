"""The paper's counts, exactly. Models are created, but not run."""

import math

import keras
import pytest

from keras_perceiver import (
    Perceiver,
    PerceiverClassifier,
    PointCloud,
    Sequence,
    flops,
)


@pytest.fixture(autouse=True)
def _zero_weights(monkeypatch):
    """Skips the random initialization of hundreds of millions of weights."""
    monkeypatch.setattr(
        keras.initializers.VarianceScaling,
        "__call__",
        lambda self, shape, dtype=None: keras.ops.zeros(shape, dtype),
    )


@pytest.mark.parametrize("name", list(PerceiverClassifier.presets))
@pytest.mark.fast_on("torch")
def test_stated_counts_are_true(name):
    preset = PerceiverClassifier.presets[name]
    model = PerceiverClassifier.from_preset(name)
    assert model.num_classes == preset.num_classes
    # Not the averages of batch normalization.
    parameters = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    assert parameters == preset.parameters
    counted = flops(model, preset.num_inputs)
    assert counted / 1e9 == pytest.approx(preset.gflops, rel=1e-3)
    if name != "modelnet40":  # any number of points
        assert flops(model) == counted
    assert preset.source


@pytest.mark.one_backend
@pytest.mark.parametrize("name", ["tiny", "small"])
def test_sizes_are_for_any_modality(name):
    modality = Sequence(6, vocabulary_size=5, embedding_dim=3, num_bands=2)
    model = PerceiverClassifier.from_preset(name, 3, modality=modality)
    assert model.input_shape == (None, 6)
    assert model.output_shape == (None, 3)
    images, sequences = (
        encoder.get_config() for encoder in (Perceiver.from_preset(name), model.encoder)
    )
    for key in ("num_latents", "latent_dim", "num_blocks"):
        assert sequences[key] == images[key]
    for key in ("cross_attend", "self_attend"):
        assert sequences[key]["config"]["dropout"] == 0.1


def _counts(input_dim, num_inputs, num_reads, num_transformers, num_classes, extra=0):
    """Parameters and GFLOPs of blocks over 512 x 1024 latents, counted by hand.

    There are `num_transformers` separate latent Transformers, with 8 self-attends each if
    there are two, and with 6 if there is one.
    """
    c, d, n, m = input_dim, 1024, 512, num_inputs
    cross_attend = 4 * d + 2 * c + 2 * d * c + 2 * c * c + 3 * c + 2 * d * d + 3 * d
    depth = {1: 6, 2: 8}[num_transformers]
    parameters = num_reads * cross_attend + num_transformers * depth * 6_301_696
    parameters += n * d + (d + 1) * num_classes + extra
    read = n * (2 * d * c + 2 * d * d) + 2 * m * c * c + 2 * n * m * c
    think = 6 * n * d * d + 2 * n * n * d
    macs = num_reads * read + 2 * depth * think + d * num_classes
    return parameters, 2 * macs / 1e9


# Widths of features, Fourier features and modality features.
AUDIO, MEL, VIDEO = 128 + 129, 1 + 2 * 129, 2 * 8 * 8 * 3 + 3 * 129
POINTS = 3 * 129


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("audioset_raw", _counts(AUDIO, 480, 2, 2, 527)),
        ("audioset_mel", _counts(MEL, 4800, 2, 2, 527)),
        ("audioset_video", _counts(VIDEO, 12_544, 2, 2, 527)),
        (
            "audioset_raw_video",
            _counts(VIDEO + 4, 13_024, 2, 2, 527, extra=4 + VIDEO + 4 - AUDIO),
        ),
        (
            "audioset_mel_video",
            _counts(VIDEO + 4, 17_344, 2, 2, 527, extra=4 + VIDEO + 4 - MEL),
        ),
        ("modelnet40", _counts(POINTS, 2048, 2, 1, 40)),
    ],
)
def test_other_counts_equal_those_by_hand(name, counts):
    preset = PerceiverClassifier.presets[name]
    assert preset.parameters == counts[0]
    assert preset.gflops == pytest.approx(counts[1], rel=1e-3)


IMAGENET_COUNTS = [
    ({}, 44_912_254, 706.3),
    ({"num_cross_attends": 1}, 42_135_859, 404.0),
    ({"share_weights": False}, 326_241_856, 706.3),
    ({"use_cross_attends_at_start": True}, 44_912_254, 706.3),
]


@pytest.mark.parametrize(("overrides", "parameters", "gflops"), IMAGENET_COUNTS)
def test_imagenet_has_the_papers_counts(overrides, parameters, gflops):
    model = PerceiverClassifier.from_preset("imagenet", **overrides)
    assert model.count_params() == parameters
    assert flops(model) / 1e9 == pytest.approx(gflops, rel=1e-3)
    if not overrides:
        trunk = model.encoder.iterative_attention
        self_attend = trunk.latent_transformers[0].self_attends[0]
        assert trunk.cross_attends[0].count_params() == 2_776_395
        assert self_attend.count_params() == 6_301_696
        assert model.encoder.latent_array.count_params() == 524_288
        assert model.head.count_params() == 1_025_000


def test_flops_needs_the_number_of_inputs_if_it_is_dynamic():
    encoder = Perceiver(PointCloud(num_bands=2), num_latents=2, latent_dim=8)
    with pytest.raises(
        ValueError, match=r"`num_inputs` is required.*\['points'\] may have"
    ):
        flops(encoder)
    with pytest.raises(ValueError, match="`num_inputs` must be a positive integer"):
        flops(encoder, 0)
    assert flops(encoder, 20) > flops(encoder, 10)


def test_flops_refuses_other_models():
    with pytest.raises(TypeError, match="`model` must be a `Perceiver`"):
        flops(object())
