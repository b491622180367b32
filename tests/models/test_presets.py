"""The paper's counts, exactly. The models are built and never run."""

import keras
import pytest

from keras_perceiver import PerceiverClassifier, flops


@pytest.fixture(autouse=True)
def _zero_weights(monkeypatch):
    """Random numbers for hundreds of millions of weights that are never used take long."""
    monkeypatch.setattr(
        keras.initializers.VarianceScaling,
        "__call__",
        lambda self, shape, dtype=None: keras.ops.zeros(shape, dtype),
    )


@pytest.mark.parametrize("name", list(PerceiverClassifier.presets))
def test_stated_counts_are_true(name):
    preset = PerceiverClassifier.presets[name]
    model = PerceiverClassifier.from_preset(name)
    assert model.num_classes == preset.num_classes
    assert model.count_params() == preset.parameters
    assert flops(model) / 1e9 == pytest.approx(preset.gflops, rel=1e-3)
    assert preset.source


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


def test_flops_refuses_other_models():
    with pytest.raises(TypeError, match="`model` must be a `Perceiver`"):
        flops(object())
