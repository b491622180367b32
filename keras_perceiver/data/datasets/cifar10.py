"""CIFAR-10."""

from keras_perceiver.data.augmentation import image_changes
from keras_perceiver.data.datasets._published import published_splits, random_image
from keras_perceiver.modalities import ImagePreprocessor

_SHAPE = (32, 32, 3)


def cifar10(batch_size, seed=0, folder=None, mock=False, use_changes=True, **options):
    """Returns CIFAR-10: 32 x 32 pixels in color, in -1..1.

    Args:
        batch_size: Integer, examples per batch.
        seed: Integer, seed of the order and of the changes.
        folder: Path of the prepared data.
        mock: Boolean, whether to take random examples.
        use_changes: Boolean, whether training images are shifted, zoomed, mirrored and
            recolored a little.
        **options: Arguments of `tfds_splits`.
    """
    changes = image_changes(
        shift=0.125, rotation=0.0, contrast=0.1, brightness=0.1, noise=0.0
    )
    return published_splits(
        "cifar10",
        batch_size,
        seed,
        folder,
        mock and (lambda rng: {"id": "", **random_image(rng, _SHAPE, 10)}),
        options,
        preprocessor=ImagePreprocessor(_SHAPE),
        augment=changes if use_changes else None,
    )
