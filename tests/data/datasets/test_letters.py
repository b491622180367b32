import numpy as np
import pytest

from keras_perceiver.data import draw_letters

pytestmark = pytest.mark.one_backend


def test_images_and_labels():
    images, labels = draw_letters(60, size=20, characters="IO")
    assert images.shape == (60, 20, 20, 1)
    assert (images.dtype, labels.dtype) == ("float32", "int32")
    assert images.min() == -1
    assert images.max() > 0.9
    assert set(labels) == {0, 1}
    # An O is emptier in the middle than an I, and the border is background.
    middle = images[:, 8:12, 8:12].mean(axis=(1, 2, 3))
    assert middle[labels == 0].mean() > middle[labels == 1].mean() + 0.1
    border = [images[:, [0, -1]], images[:, :, [0, -1]]]
    assert max(x.mean() for x in border) < -0.9


def test_follows_from_the_seed():
    first, again, other = (draw_letters(5, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert np.abs(first[0] - other[0]).max() > 1


def test_fonts_of_the_test_are_others():
    images, _ = draw_letters(5)
    test_images, _ = draw_letters(5, use_test_fonts=True)
    assert np.abs(images - test_images).max() > 1


def test_refuses_no_characters_and_no_examples():
    with pytest.raises(ValueError, match="`characters` must contain"):
        draw_letters(5, characters="")
    with pytest.raises(ValueError, match="num_examples=0"):
        draw_letters(0)
