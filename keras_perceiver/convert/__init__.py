"""Weights of other packages: to and from the layouts of Hugging Face and DeepMind."""

from keras_perceiver.convert import hugging_face
from keras_perceiver.convert.deepmind import load_deepmind
from keras_perceiver.convert.hugging_face import save_to_hugging_face
from keras_perceiver.models.handles import LOADERS

__all__ = ["load_deepmind", "save_to_hugging_face"]

LOADERS.append(hugging_face.loader)
