"""CIFAR-10."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keras_perceiver.data.augmentation import image_augmentation
from keras_perceiver.data.datasets._published import published_splits, random_image
from keras_perceiver.modalities import ImagePreprocessor

if TYPE_CHECKING:
    from keras_perceiver._typing import PathLike
    from keras_perceiver.data.splits import Splits

_SHAPE = (32, 32, 3)


def cifar10(
    batch_size: int,
    seed: int = 0,
    folder: PathLike | None = None,
    mock: bool = False,
    use_augmentation: bool = True,
    preprocessor: ImagePreprocessor | None = None,
    **options: Any,
) -> Splits:
    """Returns CIFAR-10: color images of 32 x 32 pixels in -1..1, in 10 classes.

    Source: [cifar10](https://www.tensorflow.org/datasets/catalog/cifar10) of
    TensorFlow Datasets. The first tenth of its training data is for validation.

    Args:
        batch_size: Integer, examples per batch.
        seed: Integer, seed of the shuffling and of the augmentation.
        folder: Path of the prepared data.
        mock: Boolean, whether to use random examples.
        use_augmentation: Boolean, whether training images are slightly shifted, zoomed,
            flipped and changed in color.
        preprocessor: `ImagePreprocessor` for 32 x 32 pixels. Defaults to one with
            values in -1..1.
        **options: Arguments of `tfds_splits`, such as `download=True`.

    Returns:
        `Splits` of 45,000, 5,000 and 10,000 examples. Images are float32 of shape
        `(batch, 32, 32, 3)`, labels int32 of shape `(batch,)`.

    Raises:
        FileNotFoundError: if the data are not prepared.
        ValueError: as `tfds_splits`.
    """
    preprocessor = preprocessor or ImagePreprocessor(_SHAPE)
    changes = image_augmentation(
        shift=0.125,
        rotation=0.0,
        contrast=0.1,
        brightness=0.1,
        noise=0.0,
        value_range=preprocessor.value_range,
    )
    return published_splits(
        "cifar10",
        batch_size,
        seed,
        folder,
        mock and (lambda rng: {"id": "", **random_image(rng, _SHAPE, 10)}),
        options,
        preprocessor=preprocessor,
        augment=changes if use_augmentation else None,
    )
