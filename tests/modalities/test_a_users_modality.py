"""A user-defined modality and its preprocessor, from a folder to a server.

The package has no support for sensor readings in `.csv` files.
"""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_perceiver import (
    Perceiver,
    PerceiverClassifier,
    Preprocessor,
    SelfAttend,
    Series,
    export_for_serving,
)
from keras_perceiver.data import folder_splits
from keras_perceiver.modalities.preprocessors import FileRule
from tests.modalities.preprocessors.checks import (
    check_graph_form,
    check_preprocessor,
    check_rule,
)

NUM_SENSORS, MAX_LENGTH = 2, 12


@keras.saving.register_keras_serializable(package="tests")
class SensorSeries(Series):
    """Readings of several sensors over time."""

    input_name = "sensors"

    def __init__(self, max_length, num_sensors, **kwargs):
        super().__init__(max_length, **kwargs)
        self.max_length = max_length
        self.num_sensors = num_sensors

    @property
    def step_shape(self):
        return (self.num_sensors,)

    @property
    def element_dim(self):
        return self.num_sensors

    def elements(self, inputs):
        return inputs


@keras.saving.register_keras_serializable(package="tests")
class SensorPreprocessor(Preprocessor):
    """Reads `.csv` files, one line per time, and scales readings by a unit."""

    input_name = "sensors"
    suffixes = (".csv",)
    file_kind = "lines of numbers separated by commas"
    use_mask = True

    def __init__(self, num_sensors, unit=1.0):
        self.num_sensors = num_sensors
        self.unit = unit
        self.shape = (None, num_sensors)

    @property
    def _columns_rule(self):
        return FileRule(
            f"Files must have {self.num_sensors} columns.",
            "{} columns",
            "Choose the columns",
        )

    def decode(self, content, suffix=""):
        lines = content.decode().splitlines()
        readings = np.loadtxt(lines, "float32", delimiter=",", ndmin=2)
        num_columns = readings.shape[1]
        self._columns_rule.check(num_columns == self.num_sensors, num_columns)
        return readings

    def decode_in_graph(self, content):
        lines = tf.strings.split(tf.strings.strip(content), "\n")
        rows = tf.strings.split(lines, ",").to_tensor()
        num_columns = tf.shape(rows)[1]
        is_right = tf.equal(num_columns, self.num_sensors)
        readings = tf.strings.to_number(rows)
        return readings, self._columns_rule.error(is_right, num_columns)

    def convert(self, array):
        return array / self.unit

    def random_file(self, rng, max_length=None):
        length = int(rng.integers(1, (max_length or MAX_LENGTH) + 1))
        content = io.BytesIO()
        readings = rng.normal(size=(length, self.num_sensors)) * self.unit
        np.savetxt(content, readings, "%.6f", ",")
        return ".csv", content.getvalue()

    def get_config(self):
        return {
            **super().get_config(),
            "num_sensors": self.num_sensors,
            "unit": self.unit,
        }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of two classes, which differ in the sign of the first sensor."""
    folder = tmp_path_factory.mktemp("sensors")
    rng = np.random.default_rng(0)
    for part, num_files in (("train", 24), ("test", 8)):
        for name, sign in (("falling", -1), ("rising", 1)):
            (folder / part / name).mkdir(parents=True)
            for i in range(num_files):
                series = rng.normal(size=(int(rng.integers(5, 13)), NUM_SENSORS))
                series[:, 0] = sign * (1 + np.abs(series[:, 0]))
                path = folder / part / name / f"{i}.csv"
                np.savetxt(path, 50 * series, "%.6f", ",")
    return folder


@pytest.mark.one_backend
def test_preprocessor(tmp_path):
    preprocessor = SensorPreprocessor(NUM_SENSORS, unit=50.0)
    check_preprocessor(preprocessor, tmp_path, max_length=MAX_LENGTH)
    check_graph_form(preprocessor, [b"1,2\n3,4\n", b"-1e3,0.5"])
    check_rule(preprocessor, b"1,2,3\n", "2 columns. Received: 3 columns. Choose")


@pytest.mark.slow
def test_from_a_folder_to_a_server(folder, tmp_path):
    """On every backend. On JAX and torch, the export runs in a separate process."""
    keras.utils.set_random_seed(0)
    preprocessor = SensorPreprocessor(NUM_SENSORS, unit=50.0)
    splits = folder_splits(folder, preprocessor, batch_size=8)
    assert splits.preprocessor is preprocessor
    modality = SensorSeries(MAX_LENGTH, NUM_SENSORS, num_bands=2, use_mask=True)
    encoder = Perceiver(
        modality,
        num_latents=4,
        latent_dim=16,
        num_blocks=1,
        num_self_attends_per_block=1,
        self_attend=SelfAttend(num_heads=2),
    )
    model = PerceiverClassifier(
        encoder, 2, splits.preprocessor, class_names=splits.class_names
    )
    model.compile(keras.optimizers.Adam(1e-2))
    model.fit(
        splits.train,
        validation_data=splits.validation,
        epochs=20,
        shuffle=False,
        verbose=0,
    )
    result = model.evaluate(splits.test, return_dict=True, verbose=0)
    assert result["accuracy"] > 0.9

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.preprocessor.get_config() == preprocessor.get_config()
    version = export_for_serving(loaded, tmp_path / "served")
    served = tf.saved_model.load(version).signatures["encoded"]
    paths = sorted((folder / "test").rglob("*.csv"))
    answers = served(sensors=tf.constant([path.read_bytes() for path in paths]))
    for path, logits in zip(paths, answers["logits"].numpy(), strict=True):
        readings = loaded.preprocessor.read(path)[None]
        mask = np.ones(readings.shape[:2], bool)
        inputs = {"sensors": readings, "sensors_mask": mask}
        expected = model.predict_on_batch(inputs)
        np.testing.assert_allclose(logits, expected[0], rtol=1e-4, atol=1e-4)
