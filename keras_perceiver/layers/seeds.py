"""Seeds that are drawn in one place and used in another."""

import keras
from keras import ops


def draw_seed(generator):
    """Draws the next seed of a `keras.random.SeedGenerator`, of shape `(2,)`.

    Backend-specific path: the generators of all replicas of `tf.distribute` have the
    same state, so each replica adds its index.
    """
    seed = generator.next()
    if keras.backend.backend() != "tensorflow":
        return seed
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return seed
    return seed + ops.cast([context.replica_id_in_sync_group, 0], seed.dtype)


class DrawnSeed(keras.random.SeedGenerator):
    """A seed that was drawn before, in the form that Keras' random functions take."""

    # The parent's `__init__` is not called: it would create a variable within a traced
    # call. Keras' dropout on torch checks whether there is an initial seed.
    _initial_seed = 0

    def __init__(self, seed):
        self.drawn = seed

    def next(self, ordered=True):
        return self.drawn
