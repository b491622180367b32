"""Visualization: attention maps, their figures, and figures of architectures."""

from keras_perceiver.visualization.architecture import plot_architecture
from keras_perceiver.visualization.figures import plot_attention, plot_entropy
from keras_perceiver.visualization.maps import AttentionMaps, attention_maps

__all__ = [
    "AttentionMaps",
    "attention_maps",
    "plot_architecture",
    "plot_attention",
    "plot_entropy",
]
