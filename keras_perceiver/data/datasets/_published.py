"""Helpers that the published datasets share."""

from keras_perceiver.data.augmentation import image_augmentation
from keras_perceiver.data.tfds import tfds_splits
from keras_perceiver.modalities import ImagePreprocessor

_GRAY_SHAPE = (28, 28, 1)


def published_splits(name, batch_size, seed, folder, mock, options, **settings):
    """Returns the `Splits` of a dataset whose archives may be in `folder`."""
    return tfds_splits(
        name,
        batch_size,
        seed,
        folder,
        # Archives that were downloaded by hand are where the data are prepared.
        manual_folder=folder,
        mock=mock or None,
        **{**settings, **options},
    )


def random_image(rng, shape, num_classes):
    """Returns a random example of an image dataset, for mock data."""
    image = rng.integers(0, 256, shape, dtype="uint8")
    return {"image": image, "label": rng.integers(num_classes)}


def gray_images(
    name, batch_size, seed, folder, mock, use_augmentation, options, use_flip=True
):
    """Returns the `Splits` of a dataset of gray images of 28 x 28 pixels."""
    preprocessor = options.pop("preprocessor", None) or ImagePreprocessor(_GRAY_SHAPE)
    changes = image_augmentation(
        zoom=0.1,
        rotation=0.03,
        brightness=0.0,
        noise=0.0,
        use_flip=use_flip,
        value_range=preprocessor.value_range,
    )
    return published_splits(
        name,
        batch_size,
        seed,
        folder,
        mock and (lambda rng: random_image(rng, _GRAY_SHAPE, 10)),
        options,
        preprocessor=preprocessor,
        augment=changes if use_augmentation else None,
    )
