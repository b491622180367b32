"""Drawings in 13 classes: a Perceiver on folders of small PNG images.

Command:   make train RECIPE=clipart ARGS="--data DIR", DIR with train/ and test/
Hardware:  1 CPU core (AMD EPYC with AVX2), JAX, 2026-11-24
Time:      533 and 565 s of training
Score:     test accuracy 0.413 and 0.407 (seeds 0 and 1), on 811 drawings that trees on
           colours and thumbnails get to 0.48
"""

from functools import partial

from keras_perceiver.data import (
    ImageFiles,
    folder_splits,
    image_changes,
    mixup_or_cutmix,
)
from keras_perceiver.modalities import Image
from keras_perceiver.recipes._small import folder_recipe, series

SHAPE = (32, 32, 3)


def changes():
    """Returns the random changes of drawings: moved and mirrored, else as they are.

    Their colours and sharp lines tell much.
    """
    return image_changes(
        zoom=0, rotation=0, contrast=0, brightness=0, noise=0, interpolation="nearest"
    )


def files():
    """Returns the reader of the drawings."""
    return ImageFiles(SHAPE)


def _data(batch_size, seed, folder):
    return folder_splits(
        folder,
        files(),
        batch_size,
        seed,
        changes(),
        group=series,
        validation_fraction=0.05,
        mix=partial(mixup_or_cutmix, alpha=0.4),
    )


def modality(use_mask=False):
    """Returns the layer that makes 8 x 8 elements of a drawing."""
    return Image(SHAPE, num_bands=4, patch_size=4, use_mask=use_mask)


RECIPE = folder_recipe(
    "clipart",
    _data,
    files,
    modality,
    epochs=300,
    ema_momentum=0.999,
    num_latents=16,
    latent_dim=64,
    num_blocks=4,
    num_self_attends_per_block=1,
    dropout=0.0,
    element_dropout=0.1,
)
