"""AudioSet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from keras_perceiver.data.augmentation import video_augmentation
from keras_perceiver.data.builders import NUM_AUDIOSET_CLASSES
from keras_perceiver.data.crops import overlapping_clips
from keras_perceiver.data.datasets._published import published_splits
from keras_perceiver.modalities.preprocessors.pixels import scale_pixels

if TYPE_CHECKING:
    from keras_perceiver._typing import PathLike
    from keras_perceiver.data.splits import Splits

# The paper's clips: 32 frames at 25 hertz, 1.28 seconds.
_NUM_FRAMES = 32
_FRAME_SAMPLES = 48_000 // 25
_NUM_SAMPLES = _NUM_FRAMES * _FRAME_SAMPLES


def audioset(
    batch_size: int,
    seed: int = 0,
    folder: PathLike | None = None,
    mock: bool = False,
    segments: str = "all",
    modalities: Sequence[str] = ("audio", "video"),
    use_mask: bool = False,
    num_test_clips: int = 1,
    **options: Any,
) -> Splits:
    """Returns AudioSet: 1.28-second clips of audio at 48 kHz and video, with 527 labels.

    Training uses a clip at a random time and augments the video by color, crop and
    flip. Validation uses the clip in the middle.

    Source: the lists of segments of
    [AudioSet](https://research.google.com/audioset/download.html), and their clips, which
    it does not publish. `folder` contains the lists, `audio/<id>_<start>.wav` (16 bits,
    mono, 48 kHz), and `video/<id>_<start>/0001.jpg` and further frames, 25 per second.
    `<id>` is that of YouTube, and `<start>` the segment's first second. Segments without
    a WAV file are skipped and counted.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 4.2.

    Args:
        batch_size: Integer, examples per batch.
        seed: Integer, seed of the shuffling and of the augmentation.
        folder: Path of the prepared data, or of the lists and clips, where they are
            prepared.
        mock: Boolean, whether to use random examples.
        segments: String, the training data: `"all"`, or `"balanced"` for the small
            list.
        modalities: Sequence of strings, `"audio"`, `"video"` or both. Without
            `"video"`, no frames are needed.
        use_mask: Boolean, whether inputs have masks, `False` for padding and for
            missing videos. Padding and missing videos are zeros.
        num_test_clips: Integer, number of clips per test example, see
            `overlapping_clips`. If it is more than 1, test inputs have the shape
            `(batch, clips, ...)`. The paper averages the scores of 16 clips.
        **options: Arguments of `tfds_splits`.

    Returns:
        `Splits`. Inputs are a dict of `"audio"`, of shape `(batch, 61440)`, and
        `"video"`, `(batch, 32, 224, 224, 3)`, with `use_mask` also `"audio_mask"` and
        `"video_mask"`, or a tensor if there is one modality without a mask. Labels are
        float32 of shape `(batch, 527)`.

    Raises:
        FileNotFoundError: if the data are not prepared.
        ValueError: if a modality is unknown, and as `tfds_splits`.
    """
    modalities = tuple(modalities)
    if not modalities or not set(modalities) <= {"audio", "video"}:
        raise ValueError(
            "`modalities` must be of 'audio' and 'video'. Received: "
            f"modalities={modalities}. Choose one or both."
        )
    use_video = "video" in modalities
    change_video = video_augmentation(224)

    def clips_of(example, first_frames):
        """Returns the inputs of the clips that start at these frames, (clips, ...)."""
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
        """Returns the last frame at which a clip can start."""
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
                lambda frames: _center(_decode_frames(frames)),
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

    return published_splits(
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
    """Returns the slices of x that start at `starts`, and a mask of their valid elements.

    Both have shape `(clips, length)`. Slices are padded with zeros or empty strings.
    """
    places = starts[:, None] + tf.range(length)
    is_there = places < tf.shape(x)[0]
    padded = tf.concat([x, tf.zeros([1], x.dtype)], axis=0)
    parts = tf.gather(padded, tf.where(is_there, places, tf.shape(x)[0]))
    parts = tf.ensure_shape(parts, (None, length))
    return parts, tf.ensure_shape(is_there, (None, length))


def _decode_frames(frames):
    """Decodes JPEG frames of one size. Missing frames are zeros, which is gray.

    Returns:
        Float32 tensor of shape `(frames, height, width, 3)` in -1..1, whose shorter
        side has 256 pixels.
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
        # The frames may have been stored in this size.
        there = scale_pixels(tf.image.resize(there, size, antialias=True))
        missing = tf.shape(frames)[0] - num_there
        return tf.pad(there, [[0, missing], [0, 0], [0, 0], [0, 0]])

    def gray():
        return tf.zeros((tf.shape(frames)[0], 256, 256, 3))

    video = tf.cond(num_there > 0, decode, gray)
    return tf.ensure_shape(video, (frames.shape[0], None, None, 3))


def _center(video):
    top, left = tf.unstack((tf.shape(video)[1:3] - 224) // 2)
    return tf.ensure_shape(
        video[:, top : top + 224, left : left + 224], (video.shape[0], 224, 224, 3)
    )
