"""Every recipe passes its smoke test offline, with a small model.

To test the recipe's own model on a backend, run `keras-perceiver train RECIPE --smoke`.
"""

import dataclasses

import keras
import pytest

from keras_perceiver import PerceiverMultiLabelClassifier, recipes
from tests.training.runs import EagerClassifier, EagerMultiLabelClassifier, finished

pytestmark = pytest.mark.one_backend


# A small model, and fewer inputs.
_SMALL = {
    "model.num_latents": 2,
    "model.latent_dim": 8,
    "model.num_blocks": 1,
    "model.num_self_attends_per_block": 1,
    "model.self_attend.num_heads": 1,
    # Instead of the width of the inputs, which is large for patches.
    "model.cross_attend.num_heads": 1,
    "model.cross_attend.qk_dim": 8,
}
# Each kind of data: TensorFlow Datasets, arrays, and folders of each kind of file.
_FAST = ("digits", "images", "imagenet", "instruments_mel", "points")
_FEW_INPUTS = {
    "imagenet": {"model.modality.patch_size": 32},
    "audioset": {
        "data.num_test_clips": 2,
        "model.modality.modality.audio.patch_size": 2048,
        "model.modality.modality.video.patch_size": (8, 56, 56),
    },
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in _FAST))
        for name in recipes.names()
        if name != "fine_tune"  # needs a preset, see test_fine_tune.py
    ],
)
def test_recipe_passes_its_smoke_test(name, tmp_path):
    recipe = recipes.get(name).replace({**_SMALL, **_FEW_INPUTS.get(name, {})})
    has_many_labels = recipe.task.cls is PerceiverMultiLabelClassifier
    task = EagerMultiLabelClassifier if has_many_labels else EagerClassifier
    recipe = dataclasses.replace(recipe, task=task)
    run = finished(recipe, tmp_path / "run", smoke=True)
    assert 0 <= run.metrics[f"test_{run.model.score}"] <= 1
    lines = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert len(lines) == 2
    model = keras.saving.load_model(tmp_path / "run" / "model.keras", compile=False)
    assert model.num_classes == len(run.metrics["class_names"])
