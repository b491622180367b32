import keras
import numpy as np
import pytest

from keras_perceiver import Modality, PointCloud
from tests import contracts, reference


@keras.saving.register_keras_serializable(package="keras_perceiver")
class Readings(Modality):
    """A user-defined modality with the minimum of definitions."""

    input_name = "readings"
    input_range = (0, 9)
    element_dim = 2

    def __init__(self, num_hours=None, **kwargs):
        super().__init__(**kwargs)
        self.num_hours = num_hours

    @property
    def input_shape(self):
        return (self.num_hours, 2)

    def elements(self, inputs):
        return inputs

    def get_config(self):
        return {**super().get_config(), "num_hours": self.num_hours}


def _readings(num_hours=6):
    shape = (2, num_hours, 2)
    return np.random.default_rng(0).uniform(0, 9, shape).astype("float32")


@pytest.mark.parametrize("num_hours", [None, 6])
def test_contract_of_a_users_modality(num_hours):
    config = {
        "num_hours": num_hours,
        "num_bands": 3,
        "max_resolution": 8,
        "use_mask": True,
        "projection_dim": 7,
        "use_added_positions": True,
    }
    unknown = () if num_hours else (0,)
    contracts.check_layer(Readings, config, _readings(), unknown_length=unknown)


def test_defaults_of_a_users_modality():
    layer, readings = Readings(num_bands=3, max_resolution=8), _readings()
    found = np.asarray(keras.ops.convert_to_numpy(layer(readings)))
    np.testing.assert_array_equal(found[..., :2], readings)
    expected = reference.fourier_features((6,), 3, (8,))
    np.testing.assert_allclose(found[1, :, 2:], expected, atol=1e-6)
    assert layer.mask_shape == (None,)
    assert layer.dynamic_lengths == {0: (1, None)}
    mask = np.arange(12).reshape(2, 6) % 5 > 0
    found = keras.ops.convert_to_numpy(layer.elements_mask(mask))
    np.testing.assert_array_equal(found, mask)
    random = layer.random_inputs(np.random.default_rng(0), 3)
    assert random.dtype == "float32"
    layer.check_inputs(random.shape)
    layer.check_values(random)


def test_values_outside_the_range_are_rejected_except_in_padding():
    readings, mask = _readings(), np.ones((2, 6), bool)
    for bad in (-1, 9.5, np.nan):
        readings[1, 4] = bad
        mask[1, 4] = True
        with pytest.raises(
            ValueError, match=r"`readings` must be in \[0, 9\].*Correct"
        ):
            Readings().check_values(readings, mask)
        mask[1, 4] = False
        Readings().check_values(readings, mask)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Readings(4)(_readings()),
            r"Inputs `readings` must have shape `\(batch, 4, 2\)`.*\(2, 6, 2\). Change",
        ),
        (lambda: Readings(projection_dim=0), "`projection_dim` must be a positive"),
        (
            lambda: PointCloud(projection_dim=4)(np.zeros((2, 5, 3), "float32")),
            "needs elements with features.*element_dim=0. Remove it",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_unknown_arguments_are_an_error_of_keras():
    with pytest.raises((TypeError, ValueError), match="num_band"):
        Readings(num_band=3)


def test_a_modality_without_elements_names_the_method():
    class Empty(Modality):
        input_shape, element_dim = (4, 2), 2

    with pytest.raises(NotImplementedError, match="define `elements`.*Empty"):
        Empty()(np.zeros((2, 4, 2), "float32"))
