"""Builders of datasets that TensorFlow Datasets lacks, from downloaded archives."""

# Defined here, since the builders import TensorFlow Datasets, which is slow.
MODELNET40_POINTS = 2048
NUM_AUDIOSET_CLASSES = 527
