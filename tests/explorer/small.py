"""Sizes of the models that tests explore."""

from keras_perceiver import SelfAttend

SMALL = {
    "num_latents": 3,
    "latent_dim": 8,
    "num_blocks": 2,
    "num_self_attends_per_block": 1,
    "self_attend": SelfAttend(num_heads=2),
}
