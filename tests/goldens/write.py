"""Writes the golden files of one backend: models that every later version must load.

    KERAS_BACKEND=jax python -m tests.goldens.write

Run it to add files for a new kind of layer. Existing files are not changed.
"""

import sys
from pathlib import Path

import keras
import numpy as np

import keras_perceiver as kp

FOLDER = Path(__file__).parent
BATCH = 3


def models():
    """Returns a dict from names to new small models that cover all layers."""
    return {"classifier": _classifier(), "multi_label": _multi_label()}


def _classifier():
    """Images, with quantized and frozen inner layers, compiled with the defaults."""
    encoder = kp.Perceiver(
        kp.Image((4, 6, 3), num_bands=2, patch_size=2),
        num_latents=3,
        latent_dim=8,
        num_blocks=2,
        num_self_attends_per_block=1,
        cross_attend=kp.CrossAttend(qk_dim=6, dropout=0.1),
        self_attend=kp.SelfAttend(num_heads=2, widening_factor=2),
        use_remat=True,
    )
    model = kp.PerceiverClassifier(
        encoder,
        num_classes=3,
        preprocessor=kp.ImagePreprocessor((4, 6, 3)),
        class_names=["ant", "bee", "cat"],
    )
    encoder.iterative_attention.cross_attends[0].trainable = False
    encoder.iterative_attention.latent_transformers[0].self_attends[0].value.quantize(
        "int8"
    )
    model.compile(kp.Lamb(1e-3, weight_decay=0.1))
    return model


def _multi_label():
    """All other modalities, with unshared weights and one layer in bfloat16."""
    modalities = {
        "array": kp.Array((3, 4, 2), num_bands=2, projection_dim=5),
        "audio": kp.Audio(24, sample_rate=24, patch_size=6, num_bands=2, use_mask=True),
        "mel": kp.MelSpectrogram(
            200, 200, num_mel_bins=6, frame_length=40, frame_step=20, num_bands=2
        ),
        "points": kp.PointCloud(num_bands=2, use_mask=True),
        "text": kp.Sequence(
            6,
            vocabulary_size=9,
            embedding_dim=4,
            position_encoding=kp.LearnedPositionEncoding(4, projected_dim=3),
        ),
        "video": kp.Video((2, 4, 4, 1), num_bands=2, patch_size=2),
    }
    encoder = kp.Perceiver(
        kp.ByteArray(modalities, modality_dim=3, modality_dropout={"video": 0.2}),
        num_latents=3,
        latent_dim=8,
        num_blocks=2,
        num_self_attends_per_block=1,
        num_cross_attends=2,
        cross_attend=kp.CrossAttend(use_bias=False, activation="relu"),
        self_attend=kp.SelfAttend(num_heads=2, dtype="mixed_bfloat16"),
        share_weights=False,
        use_cross_attends_at_start=True,
    )
    model = kp.PerceiverMultiLabelClassifier(encoder, num_classes=2)
    model.compile(kp.Lamb(1e-3, weight_decay=0.1))
    return model


def inputs(model):
    """Returns a reproducible dict of raw inputs of a model."""
    rng = np.random.default_rng(0)
    found = {}
    for name, modality in model.modalities.items():
        found[name] = modality.random_inputs(rng, BATCH)
        if modality.use_mask:
            shape = found[name].shape[: 1 + len(modality.mask_shape)]
            found[f"{name}_mask"] = rng.random(shape) > 0.3
    return found


def predictions(model, x):
    """Returns the predictions of a model for a dict of inputs."""
    (x,) = x.values() if len(x) == 1 else (x,)
    return model.predict(x, batch_size=BATCH, verbose=0)


def main():
    backend = keras.backend.backend()
    keras.utils.set_random_seed(1)
    for name, model in models().items():
        path = FOLDER / f"{name}_{backend}.keras"
        if path.exists():
            print(f"{path} is there, and stays as it is")
            continue
        x = inputs(model)
        # As after training, since loading would otherwise warn about a missing state.
        model.optimizer.build(model.trainable_variables)
        model.save(path)
        outputs = predictions(model, x)
        np.savez_compressed(path.with_suffix(".npz"), outputs=outputs, **x)
        if name == "classifier":
            kp.export_for_serving(model, path.with_suffix(""), version=1)
        print(path)


if __name__ == "__main__":
    sys.exit(main())
