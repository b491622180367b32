"""Small models, exported without verification, and requests to them."""

import json

import keras
import numpy as np
import tensorflow as tf

from keras_perceiver import (
    Audio,
    AudioPreprocessor,
    Image,
    ImagePreprocessor,
    Perceiver,
    PerceiverClassifier,
)
from keras_perceiver.serving import job

LABELS = ["cat", "dog", "emu", "fox"]
IMAGE_SHAPE, SAMPLE_RATE, NUM_SAMPLES = (6, 8, 3), 8000, 40


def image_model(**settings):
    """A classifier of images."""
    preprocessor = ImagePreprocessor(IMAGE_SHAPE)
    return _model(Image(IMAGE_SHAPE, num_bands=2), preprocessor, **settings)


def both_model():
    """A classifier of images and of audio of any length up to a maximum."""
    audio = Audio(NUM_SAMPLES, SAMPLE_RATE, patch_size=5, num_bands=2, use_mask=True)
    return _model(
        {"image": Image(IMAGE_SHAPE, num_bands=2), "audio": audio},
        {
            "image": ImagePreprocessor(IMAGE_SHAPE),
            "audio": AudioPreprocessor(SAMPLE_RATE, NUM_SAMPLES, use_mask=True),
        },
    )


def _model(modality, preprocessor, cls=PerceiverClassifier, **settings):
    settings = {"num_latents": 5, "latent_dim": 16, "num_blocks": 1, **settings}
    encoder = Perceiver(modality, num_self_attends_per_block=1, **settings)
    return cls(encoder, len(LABELS), preprocessor, class_names=LABELS)


def write(model, folder, preprocessors=None, **settings):
    """Writes a SavedModel as an export does, without verifying it.

    Args:
        model: Model.
        folder: Path of a new folder.
        preprocessors: Dict of preprocessors by modality name. Defaults to those of the
            model.
        **settings: Settings of the job.

    Returns:
        Path of the SavedModel.
    """
    if preprocessors is None:
        preprocessors = getattr(model, "preprocessor", None) or {}
    if not isinstance(preprocessors, dict):
        preprocessors = {preprocessors.input_name: preprocessors}
    settings = {
        "preprocessors": {
            name: keras.saving.serialize_keras_object(preprocessor)
            for name, preprocessor in preprocessors.items()
        },
        "weights": "float32",
        "name": "animals",
        "batch_sizes": [1, 3],
        **settings,
    }
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps(settings))
    job.run(model, folder)
    return folder / "saved_model"


def random_arrays(size, num_samples=NUM_SAMPLES, seed=0):
    """Returns inputs for both modalities."""
    rng = np.random.default_rng(seed)
    return {
        "image": rng.uniform(-1, 1, (size, *IMAGE_SHAPE)).astype("float32"),
        "audio": rng.uniform(-1, 1, (size, num_samples)).astype("float32"),
        "audio_mask": rng.random((size, num_samples)) > 0.3,
    }


def png(shape=IMAGE_SHAPE, seed=0):
    """Returns the bytes of a random image."""
    return tf.io.encode_png(_pixels(shape, seed)).numpy()


def jpeg(shape=IMAGE_SHAPE, seed=0):
    """Returns the bytes of a random image."""
    return tf.io.encode_jpeg(_pixels(shape, seed)).numpy()


def _pixels(shape, seed):
    return np.random.default_rng(seed).integers(0, 256, shape).astype("uint8")


def wav(num_samples=NUM_SAMPLES, sample_rate=SAMPLE_RATE, channels=1, seed=0):
    """Returns the bytes of a random WAV file."""
    rng = np.random.default_rng(seed)
    samples = rng.uniform(-1, 1, (num_samples, channels)).astype("float32")
    return tf.audio.encode_wav(samples, sample_rate).numpy()
