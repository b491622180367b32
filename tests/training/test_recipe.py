import dataclasses

import keras
import numpy as np
import pytest

from keras_perceiver import PerceiverMultiLabelClassifier, recipes
from keras_perceiver._overrides import parse_overrides
from keras_perceiver.config import Config
from keras_perceiver.training import Recipe, Run, flat_cosine
from tests.training.runs import few_digits, little_recipe, sgd

pytestmark = pytest.mark.one_backend


def _folder_digits(batch_size, seed, folder=None):
    return few_digits(batch_size, int(folder.name))


@pytest.fixture
def reach(tmp_path):
    """Returns the configuration of a prepared run, and a batch of its data."""

    def prepare(recipe, **options):
        keras.utils.clear_session(free_memory=False)
        run = Run(recipe, tmp_path / "run", tmp_path / "exports", **options)
        run.prepare()
        inputs, labels = next(run.splits.epochs(0, 1).as_numpy_iterator())
        batch = (float(inputs.sum()), inputs.shape, float(labels.sum()))
        return {**run.configuration, "batch": batch}

    return prepare


def _differences(first, second):
    return {k for k in first.keys() | second.keys() if first.get(k) != second.get(k)}


# Other values of every field, and their effects.
CHANGES = {
    "name": ({"name": "other"}, {"recipe"}),
    "data": (
        {"data": lambda batch_size, seed: few_digits(batch_size, seed + 1)},
        {"batch"},
    ),
    "task": ({"task": PerceiverMultiLabelClassifier}, {"model.class_name"}),
    "model": (
        {"model": little_recipe().model.replace({"num_latents": 3})},
        {"model.config.encoder.config.num_latents"},
    ),
    "optimizer": (
        {"optimizer": sgd(0.1)},
        {"optimizer.config.inner_optimizer.class_name"},
    ),
    "schedule": (
        {"schedule": flat_cosine},
        {
            "optimizer.config.inner_optimizer.config.learning_rate.config"
            ".initial_learning_rate"
        },
    ),
    "epochs": ({"epochs": 3}, {"epochs"}),
    "batch_size": ({"batch_size": 16}, {"batch_size", "batch"}),
    "label_smoothing": ({"label_smoothing": 0.1}, {"loss.config.label_smoothing"}),
    "ema_momentum": ({"ema_momentum": 0.9}, {"optimizer.config.ema_momentum"}),
    "accumulation_steps": (
        {"accumulation_steps": 2},
        {
            "batch",
            "optimizer.config.inner_optimizer.config.gradient_accumulation_steps",
        },
    ),
    "layer_decay": (
        {"layer_decay": 0.5},
        {
            "optimizer.config.inner_optimizer.class_name",
            "optimizer.config.inner_optimizer.config.rates.latent_array",
        },
    ),
    "patience": ({"patience": 5}, {"patience"}),
    "overrides": ({"overrides": {"epochs": 2}}, {"overrides"}),
}


def test_every_field_has_an_effect(reach):
    base = little_recipe()
    prepared = reach(base)
    assert prepared == reach(base)  # and nothing else
    for name, (change, expected) in CHANGES.items():
        changed = reach(dataclasses.replace(base, **change))
        assert expected <= _differences(prepared, changed), name
    # The others are arguments of `data`, and are tested below.
    fields = {field.name for field in dataclasses.fields(Recipe)}
    assert fields == CHANGES.keys() | {"preprocessor", "write_mock"}


def test_folder_of_the_data(reach):
    recipe = little_recipe(data=Config(_folder_digits, folder="7"))
    assert reach(recipe) == reach(recipe, data_folder="7")
    assert _differences(reach(recipe), reach(recipe, data_folder="8")) == {"batch"}
    assert (
        reach(recipe.replace({"data.folder": "8"}))["batch"]
        == (reach(recipe, data_folder="8")["batch"])
    )
    with pytest.raises(ValueError, match="needs a `data_folder`.*--data"):
        reach(little_recipe(data=_folder_digits))
    with pytest.raises(ValueError, match="does not read a folder.*Remove it"):
        reach(little_recipe(), data_folder="7")


def test_preprocessor_is_that_of_the_recipe():
    def data(batch_size, seed, preprocessor):
        return batch_size, seed, preprocessor

    recipe = little_recipe(data=data, preprocessor=Config(dict, size=3))
    assert recipe.splits(4, 1) == (4, 1, {"size": 3})
    changed = recipe.replace({"preprocessor.size": 5})
    assert changed.splits(4) == (4, 0, {"size": 5})


def _mock_digits(batch_size, seed, mock=False):
    return few_digits(batch_size, seed + mock)


def test_smoke_test(reach, tmp_path):
    recipe = little_recipe(data=_mock_digits)
    smoke = reach(recipe, smoke=True)
    assert (smoke["epochs"], smoke["batch_size"], smoke["steps_per_epoch"]) == (1, 2, 3)
    assert smoke["batch"][1] == (2, 8, 8, 1)
    assert smoke["batch"] != reach(little_recipe(), smoke=True)["batch"]
    in_parts = recipe.replace({"accumulation_steps": 4})
    assert reach(in_parts, smoke=True)["batch_size"] == 8
    chosen = recipe.replace({"batch_size": 6, "epochs": 3})
    smoke = reach(chosen, smoke=True)
    assert (smoke["epochs"], smoke["batch_size"]) == (3, 6)

    def write(folder):
        (folder / "7").mkdir()

    def data(batch_size, seed, folder):
        (path,) = folder.iterdir()
        return few_digits(batch_size, int(path.name))

    written = little_recipe(data=data, write_mock=write)
    assert reach(written, smoke=True)["batch"][1] == (2, 8, 8, 1)
    with pytest.raises(ValueError, match="smoke test needs mock data.*'digits'"):
        reach(little_recipe(data=data), smoke=True)
    with pytest.raises(ValueError, match="smoke test does not read a folder"):
        reach(recipe, smoke=True, data_folder="data")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epochs=3", {"epochs"}),
        ("batch_size=16", {"batch_size", "batch"}),
        ("patience=4", {"patience"}),
        ("label_smoothing=0", {"loss.config.label_smoothing"}),
        ("data.use_augmentation=true", {"batch"}),
        ("model.num_latents=5", {"model.config.encoder.config.num_latents"}),
        ("model.use_remat=true", {"model.config.encoder.config.use_remat"}),
        (
            "model.modality.num_bands=2",
            {"model.config.encoder.config.modality.config.num_bands"},
        ),
        (
            "optimizer.learning_rate=1e-3",
            {
                "optimizer.config.inner_optimizer.config.learning_rate.config"
                ".warmup_target"
            },
        ),
        (
            "optimizer.weight_decay=0.5",
            {"optimizer.config.inner_optimizer.config.weight_decay"},
        ),
        (
            "schedule.warmup_fraction=0.5",
            {
                "optimizer.config.inner_optimizer.config.learning_rate.config"
                ".warmup_steps"
            },
        ),
        (
            "schedule=none",
            {"optimizer.config.inner_optimizer.config.learning_rate"},
        ),
    ],
)
def test_overrides_of_every_kind(reach, text, expected):
    recipe = little_recipe()
    overrides = parse_overrides([text])
    assert overrides.keys() <= recipe.paths().keys() | {"schedule"}
    overridden = recipe.replace(overrides)
    assert overridden.overrides == overrides
    differences = _differences(reach(recipe), reach(overridden))
    assert expected | {"overrides"} <= differences


def test_overrides_change_the_size_of_the_model():
    recipe = little_recipe()
    wider = recipe.replace({"model.modality.num_bands": 5})
    assert wider.model().count_params() > recipe.model().count_params()

    def width(encoder):
        (norm,) = {w.shape for w in encoder.weights if "inputs_norm" in w.path}
        return norm[0]

    # An additional band adds a sine and a cosine for each of 2 axes.
    before = recipe.paths()["model.modality.num_bands"]
    assert width(wider.model()) - width(recipe.model()) == 4 * (5 - before)


def test_later_overrides_go_first():
    recipe = little_recipe().replace({"epochs": 3, "model.num_latents": 5})
    recipe = recipe.replace({"epochs": 4})
    assert recipe.overrides == {"epochs": 4, "model.num_latents": 5}
    assert recipe.epochs == 4
    # Fields are checked together.
    parts = little_recipe(accumulation_steps=4)
    parts = parts.replace({"batch_size": 30, "accumulation_steps": 3})
    assert parts.step_size == 10


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"epoch": 3}, "an argument of `Recipe`.*Did you mean 'epochs'"),
        ({"num_bands": 3}, "Did you mean 'model.modality.num_bands'"),
        ({"model.num_latent": 3}, "Did you mean 'model.num_latents'"),
        ({"name": "other"}, "cannot be set. Choose one of data, task, model"),
        ({"epochs": 0}, "`epochs` must be a positive integer"),
        ({"epochs": "many"}, "`epochs` must be a positive integer"),
        ({"patience": 0}, "`patience` must be a positive integer"),
        ({"accumulation_steps": 0}, "`accumulation_steps` must be a positive integer"),
        (
            {"accumulation_steps": 3},
            "must be divisible by `accumulation_steps`.*32.*=3.*a multiple of 3",
        ),
        ({"label_smoothing": 1.0}, r"`label_smoothing` must be a number in \[0, 1\)"),
        ({"ema_momentum": "a"}, r"`ema_momentum` must be a number in \[0, 1\)"),
        ({"model": "large"}, "`model` must be a `Config`.*model.ARGUMENT=VALUE"),
    ],
)
def test_bad_overrides(overrides, message):
    with pytest.raises(ValueError, match=message):
        little_recipe().replace(overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model.num_latents": "many"}, "`num_latents` must be a positive integer"),
        ({"optimizer.learning_rate": "high"}, "must be a number, the peak of `sched"),
        (
            {"optimizer.gradient_accumulation_steps": "many"},
            "`AdamW` must be called with valid arguments",
        ),
        ({"schedule.warmup_fraction": 2}, "`warmup_fraction` must be a number in"),
    ],
)
def test_bad_values_are_found_before_the_data_are_read(overrides, message, tmp_path):
    def no_data(batch_size, seed):
        raise AssertionError("The check came too late.")

    recipe = little_recipe(data=no_data).replace(overrides)
    with pytest.raises(ValueError, match=message):
        Run(recipe, tmp_path / "run", tmp_path / "exports").prepare()


def test_precision_is_that_of_all_layers(reach):
    recipe = little_recipe()
    half = recipe.at_precision("mixed_bfloat16")
    assert (recipe.precision, half.precision) == ("float32", "mixed_bfloat16")
    encoder = half.model()
    assert encoder.iterative_attention.dtype_policy.name == "mixed_bfloat16"
    assert encoder.modality.dtype_policy.name == "mixed_bfloat16"
    assert reach(half)["precision"] == "mixed_bfloat16"
    assert keras.config.dtype_policy().name == "float32"
    with pytest.raises(ValueError, match="`precision` must be one of.*float8.*float32"):
        recipe.at_precision("float8")


def test_learning_rate_is_the_peak_of_the_schedule():
    optimizer = little_recipe().build_optimizer(num_updates=100)
    rates = [float(optimizer.learning_rate)]
    weight = keras.Variable([1.0])
    for _ in range(5):
        optimizer.apply([keras.ops.array([0.0])], [weight])
        rates.append(float(optimizer.learning_rate))
    np.testing.assert_allclose(rates, 4e-3 * np.arange(6) / 5, rtol=1e-5)
    constant = little_recipe(schedule=None).build_optimizer(num_updates=100)
    assert float(constant.learning_rate) == pytest.approx(4e-3)


def test_unknown_recipe():
    with pytest.raises(
        ValueError, match=r"`recipe` must be one of .*, digits, .*'nothing'. Choose"
    ):
        recipes.get("nothing")


def test_recipe_of_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no '.*metrics.json'"):
        recipes.of_run(tmp_path)
    text = '{"recipe": "digits", "overrides": {"model.modality.shape": [6, 6, 1]}}'
    (tmp_path / "metrics.json").write_text(text)
    recipe = recipes.of_run(tmp_path)
    assert recipe.model().input_shape == (None, 6, 6, 1)
    assert recipe.overrides == {"model.modality.shape": [6, 6, 1]}
