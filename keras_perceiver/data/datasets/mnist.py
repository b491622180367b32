"""MNIST."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keras_perceiver.data.datasets._published import gray_images

if TYPE_CHECKING:
    from keras_perceiver._typing import PathLike
    from keras_perceiver.data.splits import Splits


def mnist(
    batch_size: int,
    seed: int = 0,
    folder: PathLike | None = None,
    mock: bool = False,
    use_augmentation: bool = True,
    **options: Any,
) -> Splits:
    """Returns MNIST: handwritten digits of 28 x 28 pixels in -1..1, in 10 classes.

    Source: [mnist](https://www.tensorflow.org/datasets/catalog/mnist) of
    TensorFlow Datasets. The first tenth of its training data is for validation.

    Args:
        batch_size: Integer, examples per batch.
        seed: Integer, seed of the shuffling and of the augmentation.
        folder: Path of the prepared data.
        mock: Boolean, whether to use random examples.
        use_augmentation: Boolean, whether training images are slightly shifted, zoomed
            and rotated.
        **options: Arguments of `tfds_splits`, such as `download=True`.

    Returns:
        `Splits` of 54,000, 6,000 and 10,000 examples. Images are float32 of shape
        `(batch, 28, 28, 1)`, labels int32 of shape `(batch,)`.

    Raises:
        FileNotFoundError: if the data are not prepared.
        ValueError: as `tfds_splits`.
    """
    return gray_images(
        "mnist",
        batch_size,
        seed,
        folder,
        mock,
        use_augmentation,
        options,
        use_flip=False,
    )
