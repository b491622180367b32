"""Every recipe passes its smoke test, offline, with a model that fits the time of CI.

On all backends, and with the recipes' own models, by hand: `tools/train.py RECIPE --smoke`.
"""

import dataclasses
import sys
from functools import partial

import keras
import pytest

from keras_perceiver import Audio, Image, Perceiver, PerceiverClassifier, Video, recipes
from keras_perceiver.data import audioset
from keras_perceiver.training import train

pytestmark = pytest.mark.one_backend

# Of the largest inputs, few elements.
MODALITIES = {
    "imagenet": lambda: Image((224, 224, 3), num_bands=2, patch_size=32),
    "audioset": lambda: {
        "audio": Audio(61_440, 48_000, patch_size=2048, num_bands=2),
        "video": Video((32, 224, 224, 3), patch_size=(8, 56, 56), num_bands=2),
    },
}


def _small(recipe):
    """Returns a recipe with the same data and modalities, and a small model."""

    def model(num_classes):
        if recipe.name in MODALITIES:
            modality = MODALITIES[recipe.name]()
        else:
            byte_array = recipe.model(num_classes).encoder.byte_array
            modality = byte_array.modalities
            if byte_array.is_single:
                (modality,) = modality.values()
        encoder = Perceiver(
            modality,
            num_latents=2,
            latent_dim=8,
            num_blocks=1,
            num_self_attends_per_block=1,
            num_self_attend_heads=1,
            # Not the width of elements, which is that of large patches.
            cross_attend_qk_dim=8,
        )
        small = PerceiverClassifier(encoder, num_classes)
        # For three steps, a compiler takes longer than it saves.
        small.compile = partial(small.compile, run_eagerly=True)
        return small

    changes = {"model": model}
    if recipe.name == "audioset":
        changes["smoke"] = partial(audioset, mock=True, num_test_clips=2)
    return dataclasses.replace(recipe, **changes)


@pytest.mark.parametrize("name", recipes.names())
def test_recipe_passes_its_smoke_test(name, tmp_path, monkeypatch):
    module = sys.modules["keras_perceiver.training.train"]
    monkeypatch.setattr(module, "export_for_serving", lambda *call, **_: call[1])
    recipe = _small(recipes.get(name))
    result = train(recipe, tmp_path / "run", tmp_path / "exports", smoke=True)
    assert 0 <= result[f"test_{recipe.score}"] <= 1
    lines = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert len(lines) == 2
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert model.num_classes == len(result["class_names"])
