"""ImageNet."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from keras_perceiver.data.crops import inception_crop
from keras_perceiver.data.datasets._published import published_splits, random_image
from keras_perceiver.data.mixing import cutmix, mixup, mixup_or_cutmix
from keras_perceiver.data.rand_augment import rand_augment
from keras_perceiver.modalities import ImagePreprocessor

if TYPE_CHECKING:
    from keras_perceiver._typing import PathLike
    from keras_perceiver.data.splits import Splits


def imagenet(
    batch_size: int,
    seed: int = 0,
    folder: PathLike | None = None,
    mock: bool = False,
    num_ops: int = 4,
    magnitude: float = 5,
    mixup_alpha: float = 0.2,
    use_cutmix: bool = True,
    preprocessor: ImagePreprocessor | None = None,
    **options: Any,
) -> Splits:
    """Returns ImageNet: images of 224 x 224 pixels in -1..1, in 1,000 classes.

    Training images are random crops (`inception_crop`), half of them flipped, augmented
    by `rand_augment`, and mixed with each other. Other images are cropped to the
    central square of 224 / 256 of the shorter side. The test data are the published
    validation data, since the published test data have no labels, and 10,000 training
    images are held out for validation. All of this is as in DeepMind's training code.

    Source: `imagenet2012` of TensorFlow Datasets, from the archives of
    [image-net.org](https://image-net.org), which are downloaded by hand.

    Args:
        batch_size: Integer, examples per batch.
        seed: Integer, seed of the shuffling and of the augmentation.
        folder: Path of the prepared data, or of `ILSVRC2012_img_train.tar` and
            `ILSVRC2012_img_val.tar`, where they are prepared.
        mock: Boolean, whether to use random examples.
        num_ops: Integer, see `rand_augment`. 0 disables it.
        magnitude: Float, see `rand_augment`.
        mixup_alpha: Float, see `mixup`. 0 disables it.
        use_cutmix: Boolean, whether images are mixed by `cutmix`. If `mixup_alpha` is
            not 0 as well, each is applied to half of a batch.
        preprocessor: `ImagePreprocessor` for 224 x 224 pixels. Defaults to one with the
            published crops and values in -1..1.
        **options: Arguments of `tfds_splits`.

    Returns:
        `Splits` of 1,271,167, 10,000 and 50,000 examples. Images are float32 of shape
        `(batch, 224, 224, 3)`. Labels are int32 of shape `(batch,)` if nothing is mixed.
        Otherwise those of all three are float32 of shape `(batch, 1000)`.

    Raises:
        FileNotFoundError: if the data are not prepared.
        ValueError: as `tfds_splits`.
    """
    num_classes = 1000
    mix: Callable | None
    if mixup_alpha and use_cutmix:
        mix = mixup_or_cutmix(num_classes, mixup_alpha)
    elif mixup_alpha:
        mix = mixup(num_classes, mixup_alpha)
    else:
        mix = cutmix(num_classes) if use_cutmix else None
    preprocessor = preprocessor or ImagePreprocessor(
        (224, 224, 3),
        crop_to_aspect_ratio=True,
        crop_fraction=224 / 256,
        interpolation="bicubic",
    )
    distort = None
    if num_ops:
        distort = rand_augment(num_ops, magnitude, preprocessor.value_range)

    def label_of(example):
        label = tf.cast(example["label"], "int32")
        return label if mix is None else tf.one_hot(label, num_classes)

    def prepare(example):
        # Some of the images are grayscale or CMYK, which a preprocessor rejects.
        image = tf.io.decode_jpeg(example["image"], channels=3)
        return preprocessor.convert(image), label_of(example)

    def prepare_train(example, key):
        image = preprocessor.scale(inception_crop(example["image"], key, 224))
        # After resizing, which is cheaper. DeepMind's code does it before.
        image = image if distort is None else distort(image, key)
        return image, label_of(example)

    def random_example(rng):
        size = rng.integers(60, 90, 2)
        return {"file_name": "", **random_image(rng, (*size, 3), num_classes)}

    return published_splits(
        "imagenet2012",
        batch_size,
        seed,
        folder,
        mock and random_example,
        {
            "train_split": "train[10000:]",
            "validation_split": "train[:10000]",
            "test_split": "validation",
            **options,
        },
        encoded=("image",),
        preprocessor=preprocessor,
        prepare=prepare,
        prepare_train=prepare_train,
        mix=mix,
    )
