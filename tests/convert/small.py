"""A small folder in Hugging Face's layout, without `transformers`."""

import json

from keras_perceiver import PerceiverClassifier
from keras_perceiver.convert import save_to_hugging_face

CONFIG = {
    "model_type": "perceiver",
    "architectures": ["PerceiverForImageClassificationLearned"],
    "image_size": 8,
    "num_latents": 4,
    "d_latents": 16,
    "num_blocks": 1,
    "num_self_attends_per_block": 1,
    "num_self_attention_heads": 2,
    "num_cross_attention_heads": 1,
    "num_labels": 3,
}


def write_folder(folder, **settings):
    """Writes a model with random weights, and returns it."""
    folder.mkdir()
    edit_json(folder / "config.json", CONFIG, **settings)
    model = PerceiverClassifier.from_preset(folder, load_weights=False)
    save_to_hugging_face(model, folder)
    return model


def edit_json(path, content=None, **settings):
    """Sets keys of a JSON file, or removes those with `...`."""
    content = {**(content or json.loads(path.read_text())), **settings}
    content = {key: value for key, value in content.items() if value is not ...}
    path.write_text(json.dumps(content))
