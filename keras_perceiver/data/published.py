"""The data sets of the paper and small ones, in the shapes of the paper's models.

All take `folder`, where the data are or shall be prepared, `mock=True` for a few random
examples that go the same way as true ones after reading, and as `**options` the
`num_processes`, `process_index`, `download` and the splits of `tfds_splits`.
"""

import tensorflow as tf

from keras_perceiver.data.augmentation import (
    image_changes,
    point_scaling,
    unit_cube,
    video_changes,
)
from keras_perceiver.data.builders import MODELNET40_POINTS, NUM_AUDIOSET_CLASSES
from keras_perceiver.data.crops import (
    central_crop,
    inception_crop,
    overlapping_clips,
    time_crop,
)
from keras_perceiver.data.mixing import cutmix, mixup, mixup_or_cutmix
from keras_perceiver.data.rand_augment import rand_augment
from keras_perceiver.data.tfds import tfds_splits


def imagenet(
    batch_size,
    seed=0,
    folder=None,
    mock=False,
    num_ops=4,
    magnitude=5,
    mixup_alpha=0.2,
    use_cutmix=True,
    **options,
):
    """Returns ImageNet, 224 x 224 pixels in -1..1, of 1,000 classes.

    Training images are random crops (`inception_crop`), half of them mirrored, changed by
    `rand_augment`, and mixed with each other; the others are resized to 256 pixels and
    their middle is cut out. The test data are the published validation data, of which the
    published test data have no labels; 10,000 training images are for validation. As in
    DeepMind's training code.

    Args:
        batch_size: Integer, examples per batch.
        seed: Integer, seed of the order and of the changes.
        folder: Path of the prepared data, or of `ILSVRC2012_img_train.tar` and
            `ILSVRC2012_img_val.tar`, beside which they are prepared.
        mock: Boolean, whether to take random examples.
        num_ops: Integer, see `rand_augment`; 0 leaves it out.
        magnitude: Float, see `rand_augment`.
        mixup_alpha: Float, see `mixup`; 0 leaves it out.
        use_cutmix: Boolean, whether images are mixed by `cutmix`; with `mixup_alpha` half
            of a batch by either.
        **options: Arguments of `tfds_splits`.

    Returns:
        `Splits`. Labels are integers if nothing is mixed, else, in all three, float32 of
        shape `(batch, 1000)`.
    """
    num_classes = 1000
    if mixup_alpha and use_cutmix:
        mix = mixup_or_cutmix(num_classes, mixup_alpha)
    elif mixup_alpha:
        mix = mixup(num_classes, mixup_alpha)
    else:
        mix = cutmix(num_classes) if use_cutmix else None
    distort = rand_augment(num_ops, magnitude) if num_ops else None

    def label_of(example):
        label = tf.cast(example["label"], "int32")
        return label if mix is None else tf.one_hot(label, num_classes)

    def prepare(example):
        image = central_crop(example["image"], 224, resize=256)
        return image / 127.5 - 1, label_of(example)

    def prepare_train(example, key):
        image = inception_crop(example["image"], key, 224) / 127.5 - 1
        # After resizing, which costs less, and not before it as DeepMind does.
        image = image if distort is None else distort(image, key)
        return image, label_of(example)

    def random_example(rng):
        size = rng.integers(60, 90, 2)
        return {"file_name": "", **_random_image(rng, (*size, 3), num_classes)}

    return _splits(
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
        prepare=prepare,
        prepare_train=prepare_train,
        mix=mix,
    )


def cifar10(batch_size, seed=0, folder=None, mock=False, use_changes=True, **options):
    """Returns CIFAR-10: 32 x 32 pixels in colour, in -1..1.

    Args:
        batch_size: Integer, examples per batch.
        seed: Integer, seed of the order and of the changes.
        folder: Path of the prepared data.
        mock: Boolean, whether to take random examples.
        use_changes: Boolean, whether training images are shifted, zoomed, mirrored and
            recoloured a little.
        **options: Arguments of `tfds_splits`.
    """
    changes = image_changes(
        shift=0.125, rotation=0.0, contrast=0.1, brightness=0.1, noise=0.0
    )
    return _splits(
        "cifar10",
        batch_size,
        seed,
        folder,
        mock and (lambda rng: {"id": "", **_random_image(rng, (32, 32, 3), 10)}),
        options,
        augment=changes if use_changes else None,
    )


def mnist(batch_size, seed=0, folder=None, mock=False, use_changes=True, **options):
    """Returns MNIST: handwritten digits of 28 x 28 pixels, in -1..1.

    Args:
        batch_size: Integer, examples per batch.
        seed: Integer, seed of the order and of the changes.
        folder: Path of the prepared data.
        mock: Boolean, whether to take random examples.
        use_changes: Boolean, whether training images are shifted, zoomed and turned a
            little.
        **options: Arguments of `tfds_splits`.
    """
    return _grey_images(
        "mnist", batch_size, seed, folder, mock, use_changes, options, use_flip=False
    )


def fashion_mnist(
    batch_size, seed=0, folder=None, mock=False, use_changes=True, **options
):
    """Returns Fashion-MNIST: clothes of 28 x 28 pixels, in -1..1.

    Args:
        batch_size: Integer, examples per batch.
        seed: Integer, seed of the order and of the changes.
        folder: Path of the prepared data.
        mock: Boolean, whether to take random examples.
        use_changes: Boolean, whether training images are shifted, zoomed, turned and
            mirrored a little.
        **options: Arguments of `tfds_splits`.
    """
    return _grey_images(
        "fashion_mnist", batch_size, seed, folder, mock, use_changes, options
    )


def _grey_images(
    name, batch_size, seed, folder, mock, use_changes, options, use_flip=True
):
    changes = image_changes(
        zoom=0.1, rotation=0.03, brightness=0.0, noise=0.0, use_flip=use_flip
    )
    return _splits(
        name,
        batch_size,
        seed,
        folder,
        mock and (lambda rng: _random_image(rng, (28, 28, 1), 10)),
        options,
        augment=changes if use_changes else None,
    )


def speech_commands(
    batch_size, seed=0, folder=None, mock=False, num_samples=16_000, **options
):
    """Returns Speech Commands: spoken words, 16,000 samples at 16 kHz, in 12 classes.

    Shorter recordings are padded with silence: at a random place in training, where they
    are also louder or softer, else at the end.

    Args:
        batch_size: Integer, examples per batch.
        seed: Integer, seed of the order and of the changes.
        folder: Path of the prepared data.
        mock: Boolean, whether to take random examples.
        num_samples: Integer, length of an example.
        **options: Arguments of `tfds_splits`.
    """
    # Up to a tenth of a second earlier or later.
    margin = num_samples // 10
    cut = time_crop(num_samples)

    def waveform(example):
        audio = tf.cast(example["audio"], "float32")[:num_samples] / 2**15
        audio = tf.pad(audio, [[0, num_samples - tf.shape(audio)[0]]])
        return tf.ensure_shape(audio, [num_samples])

    def prepare(example):
        return waveform(example), tf.cast(example["label"], "int32")

    def augment(audio, key):
        audio = cut(tf.pad(audio, [[0, 0], [margin, margin]]), key)
        shape = (tf.shape(audio)[0], 1)
        gain = tf.random.stateless_uniform(shape, [key, 1], 0.5, 1.2)
        return tf.clip_by_value(audio * gain, -1.0, 1.0)

    def random_example(rng):
        size = rng.integers(12_000, 16_001)
        audio = rng.integers(-(2**12), 2**12, size).astype("int16")
        return {"audio": audio, "label": rng.integers(12)}

    return _splits(
        "speech_commands",
        batch_size,
        seed,
        folder,
        mock and random_example,
        {"train_split": "train", "validation_split": "validation", **options},
        prepare=prepare,
        augment=augment,
    )


def modelnet40(
    batch_size,
    seed=0,
    folder=None,
    mock=False,
    release="meshes",
    scale=0.01,
    **options,
):
    """Returns ModelNet40: 2,048 points an object, in the unit cube, in 40 classes.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 4.3.

    Args:
        batch_size: Integer, examples per batch.
        seed: Integer, seed of the order and of the changes.
        folder: Path of the prepared data, or of the archive, beside which they are
            prepared: `ModelNet40.zip` or `modelnet40_ply_hdf5_2048.zip`.
        mock: Boolean, whether to take random examples.
        release: String, which of the two: `"meshes"` or `"points_2048"`.
        scale: Float, see `point_scaling`.
        **options: Arguments of `tfds_splits`.
    """

    def prepare(example):
        return unit_cube(example["points"]), tf.cast(example["label"], "int32")

    def random_example(rng):
        points = rng.normal(size=(MODELNET40_POINTS, 3)).astype("float32")
        return {"points": points, "label": rng.integers(40)}

    return _splits(
        f"modelnet40/{release}",
        batch_size,
        seed,
        folder,
        mock and random_example,
        options,
        prepare=prepare,
        augment=point_scaling(scale),
    )


# The paper's clips: 32 frames at 25 hertz, 1.28 seconds.
_NUM_FRAMES = 32
_FRAME_SAMPLES = 48_000 // 25
_NUM_SAMPLES = _NUM_FRAMES * _FRAME_SAMPLES


def audioset(
    batch_size,
    seed=0,
    folder=None,
    mock=False,
    segments="all",
    modalities=("audio", "video"),
    use_mask=False,
    num_test_clips=1,
    **options,
):
    """Returns AudioSet: clips of 1.28 seconds, sound at 48 kHz and video, 527 labels.

    Training takes a clip at a random time, changes the colours of the video, crops and
    mirrors it. Validation takes the clip in the middle.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 4.2.

    Args:
        batch_size: Integer, examples per batch.
        seed: Integer, seed of the order and of the changes.
        folder: Path of the prepared data, or of lists and clips, beside which they are
            prepared (see `keras_perceiver.data.builders.audioset`).
        mock: Boolean, whether to take random examples.
        segments: String, what to train on: `"all"`, or `"balanced"` for the small list.
        modalities: Sequence of strings, `"audio"`, `"video"` or both. Without video, its
            frames need not be there.
        use_mask: Boolean, whether masks go with the inputs, `False` for padding and for
            a video that is missing. Without, these are zeros.
        num_test_clips: Integer. If it is more than 1, a test example is so many clips,
            see `overlapping_clips`: inputs have the shape `(batch, clips, ...)`. The
            paper takes the mean score of 16.
        **options: Arguments of `tfds_splits`.

    Returns:
        `Splits`. Inputs are a dict of `"audio"`, of shape `(batch, 61440)`, and
        `"video"`, `(batch, 32, 224, 224, 3)`, with `use_mask` also `"audio_mask"` and
        `"video_mask"`; or a tensor if there is one modality without a mask. Labels are
        float32 of shape `(batch, 527)`.

    Raises:
        ValueError: if a modality is unknown, and as `tfds_splits`.
    """
    modalities = tuple(modalities)
    if not modalities or not set(modalities) <= {"audio", "video"}:
        raise ValueError(
            "`modalities` must be of 'audio' and 'video'. Received: "
            f"modalities={modalities}. Choose one or both."
        )
    use_video = "video" in modalities
    change_video = video_changes(224)

    def clips_of(example, first_frames):
        """Returns the inputs of the clips that begin at these frames, (clips, ...)."""
        inputs = {}
        if "audio" in modalities:
            times = first_frames * _FRAME_SAMPLES
            audio = tf.cast(example["audio"], "float32") / 2**15
            inputs["audio"], mask = _cut(audio, times, _NUM_SAMPLES)
            inputs["audio_mask"] = mask
        if use_video:
            frames, mask = _cut(example["video"], first_frames, _NUM_FRAMES)
            inputs["video"] = frames
            inputs["video_mask"] = tf.tile(mask[:, :, None, None], (1, 1, 224, 224))
        return inputs

    def finished(inputs):
        if not use_mask:
            inputs = {name: x for name, x in inputs.items() if name in modalities}
        return inputs if use_mask or len(modalities) > 1 else inputs[modalities[0]]

    def labels_of(example):
        rows = tf.one_hot(example["labels"], NUM_AUDIOSET_CLASSES)
        return tf.reduce_max(rows, axis=0)

    def last_frame(example):
        """Returns the last frame at which a clip can begin."""
        num_frames = tf.shape(example["audio"])[0] // _FRAME_SAMPLES
        return tf.maximum(num_frames - _NUM_FRAMES, 0)

    def held_out(example, num_clips):
        last = last_frame(example)
        if num_clips == 1:
            first = (last // 2)[None]
        else:
            first = overlapping_clips(tf.range(last + 1), 1, num_clips)[:, 0]
        inputs = clips_of(example, first)
        if use_video:
            videos = tf.map_fn(
                lambda frames: _centre(_decode_frames(frames)),
                inputs["video"],
                fn_output_signature=tf.TensorSpec(
                    (_NUM_FRAMES, 224, 224, 3), "float32"
                ),
            )
            inputs["video"] = videos
        if num_clips == 1:
            inputs = {name: x[0] for name, x in inputs.items()}
        return finished(inputs), labels_of(example)

    def prepare_train(example, key):
        last = last_frame(example)
        first = tf.random.stateless_uniform([1], [key, 0], 0, last + 1, "int32")
        inputs = {name: x[0] for name, x in clips_of(example, first).items()}
        if use_video:
            video = _decode_frames(inputs["video"])
            inputs["video"] = tf.ensure_shape(
                change_video(video[None], key)[0], (_NUM_FRAMES, 224, 224, 3)
            )
        return finished(inputs), labels_of(example)

    def random_example(rng):
        labels = rng.choice(NUM_AUDIOSET_CLASSES, rng.integers(1, 4), replace=False)
        num_frames = 50
        audio = rng.integers(-(2**12), 2**12, num_frames * _FRAME_SAMPLES)
        example = {"name": "", "audio": audio.astype("int16"), "labels": labels}
        if use_video:
            shape = (num_frames, 36, 48, 3)
            example["video"] = rng.integers(0, 256, shape, dtype="uint8")
        return example

    return _splits(
        f"audioset/{segments}{'_video' if use_video else ''}",
        batch_size,
        seed,
        folder,
        mock and random_example,
        options,
        encoded=("video",) if use_video else (),
        prepare=lambda example: held_out(example, 1),
        prepare_test=lambda example: held_out(example, num_test_clips),
        prepare_train=prepare_train,
    )


def _cut(x, starts, length):
    """Returns the parts of x that begin at `starts`, and which of their places it has.

    Shapes `(clips, length)`. Where it ends, there are zeros or empty strings.
    """
    places = starts[:, None] + tf.range(length)
    is_there = places < tf.shape(x)[0]
    padded = tf.concat([x, tf.zeros([1], x.dtype)], axis=0)
    parts = tf.gather(padded, tf.where(is_there, places, tf.shape(x)[0]))
    parts = tf.ensure_shape(parts, (None, length))
    return parts, tf.ensure_shape(is_there, (None, length))


def _decode_frames(frames):
    """Decodes JPEG frames of one size; missing ones are zeros, which is grey.

    Returns:
        Float32 tensor of shape `(frames, height, width, 3)` in -1..1, its shorter side
        256 pixels.
    """
    num_there = tf.reduce_sum(tf.cast(frames != "", "int32"))

    def decode():
        there = tf.map_fn(
            lambda frame: tf.io.decode_jpeg(frame, channels=3),
            frames[:num_there],
            fn_output_signature=tf.TensorSpec((None, None, 3), "uint8"),
        )
        height, width = tf.unstack(tf.shape(there)[1:3])
        scale = 256 / tf.minimum(height, width)
        size = tf.stack([height, width])
        size = tf.cast(tf.round(tf.cast(size, scale.dtype) * scale), "int32")
        # They may be kept in this size.
        there = tf.image.resize(there, size, antialias=True) / 127.5 - 1
        missing = tf.shape(frames)[0] - num_there
        return tf.pad(there, [[0, missing], [0, 0], [0, 0], [0, 0]])

    def grey():
        return tf.zeros((tf.shape(frames)[0], 256, 256, 3))

    video = tf.cond(num_there > 0, decode, grey)
    return tf.ensure_shape(video, (frames.shape[0], None, None, 3))


def _centre(video):
    top, left = tf.unstack((tf.shape(video)[1:3] - 224) // 2)
    return tf.ensure_shape(
        video[:, top : top + 224, left : left + 224], (video.shape[0], 224, 224, 3)
    )


def _random_image(rng, shape, num_classes):
    image = rng.integers(0, 256, shape, dtype="uint8")
    return {"image": image, "label": rng.integers(num_classes)}


def _splits(name, batch_size, seed, folder, mock, options, **settings):
    return tfds_splits(
        name,
        batch_size,
        seed,
        folder,
        # What was fetched by hand lies where the data shall be prepared.
        manual_folder=folder,
        mock=mock or None,
        **{**settings, **options},
    )
