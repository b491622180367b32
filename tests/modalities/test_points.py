import keras
import numpy as np
import pytest

from keras_perceiver import FourierPositionEncoding, PointCloud
from tests import contracts, reference


def _numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x))


def _points(num_points=11, width=5):
    shape = (2, num_points, width)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")


@pytest.mark.parametrize("num_points", [None, 11])
def test_contract(num_points):
    config = {
        "num_points": num_points,
        "num_features": 2,
        "num_bands": 3,
        "max_resolution": 20,
        "use_mask": True,
    }
    unknown = () if num_points else (0,)
    contracts.check_layer(PointCloud, config, _points(), unknown_length=unknown)


def test_features_and_positions_of_every_point():
    points = _points()
    elements = _numpy(
        PointCloud(num_features=2, num_bands=4, max_resolution=20)(points)
    )
    np.testing.assert_array_equal(elements[..., :2], points[..., 3:])
    expected = reference.fourier_features_of(
        points[..., :3].astype("float64"), 4, (20,) * 3
    )
    np.testing.assert_allclose(elements[..., 2:], expected, atol=1e-6)


def test_half_precision_only_rounds_the_elements():
    points = _points(width=3)
    layer = PointCloud(dtype="mixed_bfloat16")
    elements = _numpy(keras.ops.cast(layer(points), "float32"))
    np.testing.assert_allclose(elements, _numpy(PointCloud()(points)), atol=4e-3)


def test_default_is_the_papers():
    encoding = PointCloud().position_encoding
    assert encoding.num_bands == 64
    assert encoding._frequencies(3).max() == 1120


def test_other_position_encodings_get_the_coordinates():
    points = _points()
    own = FourierPositionEncoding(2, (8, 9, 10))
    elements = _numpy(PointCloud(num_features=2, position_encoding=own)(points))
    np.testing.assert_allclose(
        elements[..., 2:],
        _numpy(own(points, positions=points[..., :3])),
        atol=1e-6,
    )


def test_padding_has_no_influence():
    points, mask = _points(), np.random.default_rng(1).random((2, 11)) > 0.4
    layer = PointCloud(num_features=2, num_bands=3)
    np.testing.assert_array_equal(_numpy(layer.elements_mask(mask)), mask)
    padded = np.where(mask[..., None], points, np.nan)
    elements = _numpy(layer(padded, inputs_mask=mask))
    assert np.isfinite(elements).all()
    np.testing.assert_array_equal(elements[mask], _numpy(layer(points))[mask])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PointCloud(0), "`num_points` must be a positive integer"),
        (lambda: PointCloud(num_features=-1), "`num_features` must be a positive"),
        (lambda: PointCloud()(_points()), r"`\(batch, points, 3\)`.*\(2, 11, 5\)"),
        (
            lambda: PointCloud(9, 2)(_points()),
            r"`\(batch, 9, 5\)`.*Pass the coordinates",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
