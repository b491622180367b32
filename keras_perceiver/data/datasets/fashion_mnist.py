"""Fashion-MNIST."""

from keras_perceiver.data.datasets._published import gray_images


def fashion_mnist(
    batch_size, seed=0, folder=None, mock=False, use_augmentation=True, **options
):
    """Returns Fashion-MNIST: images of clothes of 28 x 28 pixels in -1..1.

    Args:
        batch_size: Integer, examples per batch.
        seed: Integer, seed of the shuffling and of the augmentation.
        folder: Path of the prepared data.
        mock: Boolean, whether to use random examples.
        use_augmentation: Boolean, whether training images are slightly shifted, zoomed,
            rotated and flipped.
        **options: Arguments of `tfds_splits`.
    """
    return gray_images(
        "fashion_mnist", batch_size, seed, folder, mock, use_augmentation, options
    )
