import keras
import numpy as np
import pytest

from keras_perceiver import FourierPositionEncoding, LearnedPositionEncoding
from tests import contracts, reference


def _numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")))


def test_fourier_contract():
    config = {"num_bands": 3, "max_resolution": (5, 9)}
    contracts.check_layer(
        FourierPositionEncoding, config, np.zeros((2, 4, 6, 3), "float32")
    )


def test_learned_contract():
    contracts.check_layer(
        LearnedPositionEncoding, {"dim": 5}, np.zeros((2, 4, 6, 3), "float32")
    )


def test_learned_contract_with_another_grid_and_a_projection():
    config = {"dim": 5, "grid": (3, 2), "projected_dim": 4}
    inputs = np.zeros((2, 4, 6, 3), "float32")
    contracts.check_layer(LearnedPositionEncoding, config, inputs, unknown_length=(0,))


def _in_a_graph_of_unknown_lengths(layer, inputs):
    """Calls a layer on a grid that is unknown to TensorFlow. Other backends know it."""
    if keras.backend.backend() != "tensorflow":
        return layer(inputs)
    import tensorflow as tf

    layer(inputs)  # creates its weights
    shape = [None] * (inputs.ndim - 1) + [inputs.shape[-1]]
    return tf.function(layer, input_signature=[tf.TensorSpec(shape)])(inputs)


@pytest.mark.parametrize("grid", [(224,), (4, 6), (1, 5)])
def test_fourier_features_of_a_dynamic_grid(grid):
    layer = FourierPositionEncoding(num_bands=8, max_resolution=224)
    features = _in_a_graph_of_unknown_lengths(layer, np.zeros((2, *grid, 1), "float32"))
    expected = reference.fourier_features(grid, 8, (224,) * len(grid))
    np.testing.assert_allclose(_numpy(features)[1], expected, atol=1e-6)


def _cubic(values, length):
    """Cubic convolution by Keys' formula with -0.75, the edges of both grids aligned."""
    a, result = -0.75, []
    for i in range(length):
        point = (i + 0.5) * len(values) / length - 0.5
        total = 0.0
        for j in range(int(np.floor(point)) - 1, int(np.floor(point)) + 3):
            x = abs(point - j)
            if x < 1:
                weight = (a + 2) * x**3 - (a + 3) * x**2 + 1
            else:
                weight = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
            total += weight * values[min(max(j, 0), len(values) - 1)]
        result.append(total)
    return np.array(result)


@pytest.mark.parametrize("new", [(4, 6), (7, 5), (2, 1), (8, 3), (40, 30)])
def test_learned_positions_are_interpolated(new):
    layer = LearnedPositionEncoding(dim=5, grid=(4, 3))
    features = _in_a_graph_of_unknown_lengths(layer, np.zeros((2, *new, 1), "float32"))
    expected = layer.positions.numpy().astype("float64")
    for axis in range(2):
        expected = np.apply_along_axis(_cubic, axis, expected, new[axis])
    np.testing.assert_allclose(_numpy(features)[1], expected.reshape(-1, 5), atol=1e-6)


def test_learned_positions_are_projected():
    layer = LearnedPositionEncoding(dim=5, projected_dim=4)
    features = _numpy(layer(np.zeros((2, 4, 6, 1), "float32")))
    projection = reference.weights_of(layer.projection)["projection"]
    table = layer.positions.numpy().astype("float64").reshape(24, 5)
    expected = reference.linear(table, projection)
    np.testing.assert_allclose(features[1], expected, atol=1e-6)


def test_imagenet_grid_equals_float64_formula():
    layer = FourierPositionEncoding(num_bands=64, max_resolution=224)
    features = _numpy(layer(np.zeros((1, 224, 224, 3), "float32")))[0]
    assert features.shape == (50_176, 258)
    expected = reference.fourier_features((224, 224), 64, (224, 224))
    assert np.abs(features - expected).max() <= 1e-6


@pytest.mark.parametrize("grid", [(9,), (4, 6), (3, 4, 5), (2, 3, 2, 4)])
def test_grids_of_any_rank(grid):
    layer = FourierPositionEncoding(num_bands=5)
    features = _numpy(layer(np.zeros((2, *grid, 1), "float32")))
    expected = reference.fourier_features(grid, 5, grid)
    for example in features:
        np.testing.assert_allclose(example, expected, atol=1e-6)


def test_max_resolution_per_axis():
    layer = FourierPositionEncoding(num_bands=5, max_resolution=[8, 20])
    features = _numpy(layer(np.zeros((1, 4, 6, 1), "float32")))[0]
    np.testing.assert_allclose(
        features, reference.fourier_features((4, 6), 5, (8, 20)), atol=1e-6
    )


def test_every_example_has_its_own_coordinates():
    positions = np.random.default_rng(0).uniform(-1, 1, (2, 11, 3)).astype("float32")
    layer = FourierPositionEncoding(num_bands=4, max_resolution=20)
    features = _numpy(layer(positions, positions=positions))
    expected = reference.fourier_features_of(positions.astype("float64"), 4, (20,) * 3)
    np.testing.assert_allclose(features, expected, atol=1e-6)


def test_coordinates_are_exact_at_the_frequencies_of_the_papers_point_clouds():
    positions = np.random.default_rng(0).uniform(-1, 1, (1, 500, 3)).astype("float32")
    positions[0, :2] = [[-1, 0, 1], [1, -0.5, 1e-6]]
    layer = FourierPositionEncoding(num_bands=64, max_resolution=1120)
    features = _numpy(layer(positions, positions=positions))
    expected = reference.fourier_features_of(
        positions.astype("float64"), 64, (1120,) * 3
    )
    # The product of frequency and position in float32 would be off by 2e-4.
    np.testing.assert_allclose(features, expected, atol=1e-6)


def test_coordinates_of_a_grid_equal_the_grid():
    axes = np.meshgrid(np.linspace(-1, 1, 4), np.linspace(-1, 1, 6), indexing="ij")
    positions = np.stack(axes, -1).reshape(1, 24, 2).astype("float32")
    layer = FourierPositionEncoding(num_bands=4, max_resolution=(4, 6))
    np.testing.assert_allclose(
        _numpy(layer(positions, positions=positions)),
        _numpy(layer(np.zeros((1, 4, 6, 1), "float32"))),
        atol=1e-5,
    )


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_only_rounds_the_result(policy):
    layer = FourierPositionEncoding(num_bands=64, max_resolution=224, dtype=policy)
    expected = reference.fourier_features((224,), 64, (224,))
    on_grid = _numpy(layer(np.zeros((1, 224, 1), "float32")))[0]
    np.testing.assert_allclose(on_grid, expected, atol=4e-3)
    positions = np.linspace(-1, 1, 224, dtype="float32").reshape(1, 224, 1)
    np.testing.assert_allclose(
        _numpy(layer(positions, positions=positions))[0], expected, atol=5e-3
    )


def test_learned_positions_are_one_vector_per_point():
    layer = LearnedPositionEncoding(dim=5)
    inputs = np.zeros((2, 4, 6, 3), "float32")
    features = _numpy(layer(inputs))
    np.testing.assert_array_equal(features[0], features[1])
    assert len(np.unique(features[0], axis=0)) == 24
    assert layer.positions.shape == (4, 6, 5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FourierPositionEncoding(0), "`num_bands` must be a positive integer"),
        (lambda: FourierPositionEncoding(4, 0), "`max_resolution` must be a positive"),
        (lambda: FourierPositionEncoding(4, (8, 0)), r"`max_resolution\[1\]` must be"),
        (lambda: LearnedPositionEncoding(-3), "`dim` must be a positive integer"),
        (
            lambda: FourierPositionEncoding(4, (8, 8))(np.zeros((1, 5, 3), "float32")),
            "one number per axis.*1 axes",
        ),
        (
            lambda: FourierPositionEncoding(4)(
                np.zeros((1, 5, 3), "float32"), positions=np.zeros((1, 5, 3), "float32")
            ),
            "`max_resolution` is required",
        ),
        (
            lambda: FourierPositionEncoding(4)(keras.KerasTensor((None, None, 3))),
            "`max_resolution` is required",
        ),
        (
            lambda: LearnedPositionEncoding(4)(keras.KerasTensor((None, None, 3))),
            "`grid` must have a length for every",
        ),
        (
            lambda: LearnedPositionEncoding(4, (5, 5))(np.zeros((1, 5, 3), "float32")),
            "Set `grid` to 1 integers",
        ),
        (lambda: LearnedPositionEncoding(4, (5, 0)), r"`grid\[1\]` must be a pos"),
        (lambda: LearnedPositionEncoding(4, projected_dim=0), "`projected_dim` must"),
        (
            lambda: FourierPositionEncoding(4, 8)(np.zeros((2, 3), "float32")),
            "at least one axis",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
