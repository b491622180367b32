"""The recipe `fine_tune` starts from a preset and trains what its settings say."""

import keras
import numpy as np
import pytest

from keras_perceiver import (
    Image,
    ImagePreprocessor,
    LearnedQueries,
    Perceiver,
    PerceiverClassifier,
    PerceiverDecoder,
    recipes,
)
from keras_perceiver.training import fine_tuned_classifier
from tests.models.small import SMALL
from tests.training.runs import finished

pytestmark = pytest.mark.one_backend


def _pretrained(preprocessor=None):
    encoder = Perceiver(Image((8, 8, 3), num_bands=1), **SMALL)
    decoder = PerceiverDecoder(LearnedQueries(1, 4))
    names = ["a", "b", "c"]
    return PerceiverClassifier(encoder, 3, preprocessor, names, decoder=decoder)


@pytest.fixture
def preset(tmp_path):
    folder = tmp_path / "preset"
    _pretrained(ImagePreprocessor((8, 8, 3))).save_to_preset(folder)
    return folder


def _recipe(preset, **changes):
    return recipes.get("fine_tune").replace({"model.name": str(preset), **changes})


def _arrays(model):
    return {w.path: keras.ops.convert_to_numpy(w).copy() for w in model.weights}


def test_starts_from_the_preset_with_a_new_head(preset):
    recipe = _recipe(preset)
    splits = recipe.mock_splits(2)
    assert splits.preprocessor.shape == (8, 8, 3)
    model = recipe.build_task(recipe.model(), splits)
    before = _arrays(PerceiverClassifier.from_preset(str(preset)))
    assert model.class_names == ("first", "second")
    new = {
        path
        for path, value in _arrays(model).items()
        if before[path].shape != value.shape or not np.array_equal(before[path], value)
    }
    assert new == {"decoder/head/kernel", "decoder/head/bias"}


@pytest.mark.parametrize(
    ("changes", "is_encoder_trained"),
    [
        pytest.param({"layer_decay": 1.0}, True, marks=pytest.mark.slow),
        ({"task.trained": "head"}, False),
        pytest.param(
            {"task.lora_rank": 2, "layer_decay": None}, False, marks=pytest.mark.slow
        ),
    ],
)
def test_trains_what_the_settings_say(changes, is_encoder_trained, preset, tmp_path):
    recipe = _recipe(preset, **{"optimizer.learning_rate": 0.01, **changes})
    run = finished(recipe, tmp_path / "run", smoke=True)
    before = _arrays(PerceiverClassifier.from_preset(str(preset)).encoder)
    after = _arrays(run.model.encoder)
    kernels = [path for path in before if path.endswith("kernel")]
    changed = [p for p in kernels if not np.array_equal(before[p], after[p])]
    assert bool(changed) == is_encoder_trained
    adapters = [after[path] for path in after.keys() - before.keys()]
    assert bool(adapters) == ("task.lora_rank" in changes)
    assert all(value.any() for value in adapters)  # one of two begins at zero
    loaded = keras.saving.load_model(tmp_path / "run" / "model.keras", compile=False)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(
        loaded.predict(images, verbose=0),
        run.model.predict(images, verbose=0),
        atol=1e-5,
    )


@pytest.mark.slow
def test_first_layers_make_smaller_steps(preset, tmp_path):
    before = _arrays(PerceiverClassifier.from_preset(str(preset)).encoder)
    last = "iterative_attention/latent_transformer_0/self_attend_0/mlp_output/bias"
    first, steps = "latent_array/latents", {}
    for decay in (1.0, 0.1):
        recipe = _recipe(preset, layer_decay=decay, schedule=None)
        run = finished(recipe, tmp_path / str(decay), smoke=True)
        after = _arrays(run.model.encoder)
        steps[decay] = [np.abs(after[p] - before[p]).mean() for p in (last, first)]
    # Adam's steps have the size of the learning rate.
    ratios = np.divide(steps[0.1], steps[1.0])
    np.testing.assert_allclose(ratios, [0.1, 0.001], rtol=0.2)


def test_an_encoder_gets_a_head_and_a_preprocessor():
    model = fine_tuned_classifier(
        Perceiver(Image((8, 8, 3), num_bands=1), **SMALL),
        2,
        ("x", "y"),
        ImagePreprocessor((8, 8, 3)),
        trained="head",
    )
    assert {w.path for w in model.trainable_weights} == {"head/kernel", "head/bias"}
    assert model.names() == ("x", "y")
    assert model.preprocessor.shape == (8, 8, 3)


def test_wrong_settings_are_refused(preset, tmp_path):
    with pytest.raises(ValueError, match=r"`trained` must be one of.*'decoder'"):
        fine_tuned_classifier(_pretrained(), 2, trained="decoder")
    with pytest.raises(ValueError, match="`lora_rank` adapts the encoder.*Set one"):
        fine_tuned_classifier(_pretrained(), 2, trained="head", lora_rank=4)
    with pytest.raises(ValueError, match=r"`layer_decay` must be in \(0, 1\]"):
        _recipe(preset, layer_decay=1.5)
    _pretrained().save_to_preset(tmp_path / "bare")
    with pytest.raises(ValueError, match="preset must have a preprocessor.*bare"):
        _recipe(tmp_path / "bare").mock_splits(2)
