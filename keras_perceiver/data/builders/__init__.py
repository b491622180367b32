"""Data sets that TensorFlow Datasets lacks, made of archives that you fetched."""

# Here, since the builders themselves import TensorFlow Datasets, which takes long.
MODELNET40_POINTS = 2048
NUM_AUDIOSET_CLASSES = 527
