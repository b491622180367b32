"""Files that a user may drop on the page, as bytes."""

import io
import wave

import numpy as np
from PIL import Image


def png(array):
    """Returns a PNG image of an array."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def npy(array):
    """Returns a `.npy` file of an array."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def wav(samples, rate):
    """Returns a 16-bit WAV file of samples in -1..1."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes((np.asarray(samples) * 32767).astype("<i2").tobytes())
    return file.getvalue()
