import keras
import numpy as np
import pytest

from keras_perceiver import Perceiver, Sequence
from tests import contracts, reference


def _numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x))


def _ids(length=9):
    # All 7 ids occur, so that every embedding has a gradient.
    return (np.arange(2 * length).reshape(2, length) % 7).astype("int32")


@pytest.mark.parametrize("use_mask", [False, True])
def test_contract(use_mask):
    config = {
        "max_length": 12 if use_mask else 9,
        "vocabulary_size": 7,
        "embedding_dim": 5,
        "num_bands": 3,
        "max_resolution": 8,
        "use_mask": use_mask,
    }
    unknown = (0,) if use_mask else ()
    contracts.check_layer(Sequence, config, _ids(), unknown_length=unknown)


def test_embeddings_and_positions_of_the_maximum_length():
    layer = Sequence(12, 7, 5, num_bands=3, use_mask=True)
    elements = _numpy(layer(_ids()))
    vectors = layer.embedding.embeddings.numpy()
    np.testing.assert_array_equal(elements[..., :5], vectors[_ids()])
    expected = reference.fourier_features((12,), 3, (12,))[:9]
    np.testing.assert_allclose(elements[1, :, 5:], expected, atol=1e-6)


def _encoder():
    sequence = Sequence(9, 7, 5, num_bands=2, use_mask=True)
    return Perceiver(
        sequence,
        num_latents=3,
        latent_dim=8,
        num_blocks=1,
        num_self_attends_per_block=1,
    )


def test_ids_outside_the_vocabulary_are_rejected_unless_masked():
    encoder, ids, mask = _encoder(), _ids(), np.ones((2, 9), bool)
    expected = encoder.predict({"sequence": ids, "sequence_mask": mask}, verbose=0)
    assert expected.shape == (2, 3, 8)
    for bad in (7, -1):
        ids[1, 4] = bad
        mask[1, 4] = True
        with pytest.raises(
            ValueError, match=r"`sequence` must be in \[0, 6\].*Correct"
        ):
            encoder.predict({"sequence": ids, "sequence_mask": mask}, verbose=0)
        mask[1, 4] = False
        encoder.predict({"sequence": ids, "sequence_mask": mask}, verbose=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sequence(0, 7, 5), "`max_length` must be a positive integer"),
        (lambda: Sequence(9, 0, 5), "`vocabulary_size` must be a positive integer"),
        (lambda: Sequence(9, 7, 0), "`embedding_dim` must be a positive integer"),
        (lambda: Sequence(8, 7, 5)(_ids()), r"with 8 ids.*\(2, 9\).*Crop or pad"),
        (lambda: Sequence(8, 7, 5, use_mask=True)(_ids()), "with up to 8 ids"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
