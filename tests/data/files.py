"""Writes small files of every kind."""

import numpy as np
import tensorflow as tf
from PIL import Image

# A smooth image with alpha, as photographs are smooth.
_BLOCKS = np.random.default_rng(0).integers(0, 256, (4, 5, 4)).astype("uint8")
PHOTO = Image.fromarray(_BLOCKS).resize((31, 23), Image.BICUBIC)


def write_image(path, shape=(6, 8, 3), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype("uint8")
    write_bytes(path, tf.io.encode_png(pixels).numpy())
    return pixels


def write_audio(path, num_samples=20, sample_rate=8000, channels=1, seed=0):
    shape = (num_samples, channels)
    audio = np.random.default_rng(seed).integers(-(2**15), 2**15, shape) / 2**15
    audio = audio.astype("float32")
    write_bytes(path, tf.audio.encode_wav(audio, sample_rate).numpy())
    return audio[:, 0]


def write_points(path, num_points=20, seed=0):
    points = np.random.default_rng(seed).normal(size=(num_points, 3))
    return write_array(path, points.astype("float32"))


def write_video(path, shape=(3, 4, 6, 2), seed=0):
    frames = np.random.default_rng(seed).integers(0, 256, shape).astype("uint8")
    return write_array(path, frames)


def write_array(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return array


def write_bytes(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def cut(path, num_bytes):
    """Truncates a file."""
    path.write_bytes(path.read_bytes()[:-num_bytes])


# A tetrahedron with one corner at 0 and the others at 2 on the axes.
TETRAHEDRON = """OFF
4 4 6
0 0 0
2 0 0
0 2 0
0 0 2
3 0 2 1
3 0 1 3
3 0 3 2
3 1 2 3
"""
