import numpy as np
import pytest

from keras_perceiver import LatentArray
from tests import contracts


def test_contract():
    inputs = np.zeros((3, 7, 4), "float32")
    config = {"num_latents": 6, "latent_dim": 5}
    contracts.check_layer(LatentArray, config, inputs, unknown_length=(0,))


def test_starts_as_the_papers_truncated_normal():
    layer = LatentArray(512, 128)
    layer.build((None, 1))
    values = layer.latents.numpy()
    assert abs(values.mean()) < 1e-3
    assert abs(values).max() <= 0.04 + 1e-6  # truncated at two standard deviations
    assert 0.8 * 0.02 < values.std() < 0.95 * 0.02


@pytest.mark.parametrize("sizes", [(0, 4), (4, -1), (2.5, 4)])
def test_bad_arguments(sizes):
    with pytest.raises(ValueError, match="must be a positive integer"):
        LatentArray(*sizes)
