import copy
import functools
import json
import pickle

import keras
import numpy as np
import pytest

from keras_perceiver._overrides import parse_overrides
from keras_perceiver.config import Config

pytestmark = pytest.mark.one_backend


class Patches:
    """A plain class, similar to a modality."""

    def __init__(self, shape, num_bands=4, **kwargs):
        self.shape, self.num_bands, self.kwargs = shape, num_bands, kwargs


class SmallPatches(Patches):
    def __init__(self, patch_size=1, **kwargs):
        super().__init__(**kwargs)
        self.patch_size = patch_size


class Model:
    def __init__(self, modality, num_latents=8, attend=None, rates=None):
        self.modality, self.num_latents = modality, num_latents
        self.attend, self.rates = attend, rates


@keras.saving.register_keras_serializable(package="test_config")
class Outer(keras.layers.Layer):
    """A layer with an inner layer, and a rule for its width."""

    def __init__(self, inner, width=2, **kwargs):
        super().__init__(**kwargs)
        if width < 1:
            raise ValueError(f"`width` must be positive. Received: width={width}.")
        self.inner, self.width = inner, width

    def get_config(self):
        inner = keras.saving.serialize_keras_object(self.inner)
        return {**super().get_config(), "inner": inner, "width": self.width}

    @classmethod
    def from_config(cls, config):
        inner = keras.saving.deserialize_keras_object(config["inner"])
        return cls(**{**config, "inner": inner})


class Pair:
    def __init__(self, layer, other):
        self.layer, self.other = layer, other


@keras.saving.register_keras_serializable(package="test_config")
class Halves(keras.layers.Layer):
    """A layer with a rule between two arguments."""

    def __init__(self, total, part, **kwargs):
        super().__init__(**kwargs)
        if total != 2 * part:
            raise ValueError(
                f"`total` must be twice `part`. Received: {total}, {part}."
            )
        self.total, self.part = total, part

    def get_config(self):
        return {**super().get_config(), "total": self.total, "part": self.part}


def _config():
    return Config(
        Model,
        modality={
            "image": Config(SmallPatches, shape=(8, 8, 1)),
            "audio": Config(Patches, shape=(4,)),
        },
        attend=Outer(keras.layers.Dense(3)),
        rates={"image": 0.1},
    )


def test_builds_nested_configs():
    model = _config()()
    image = model.modality["image"]
    assert (image.shape, image.num_bands, image.patch_size) == ((8, 8, 1), 4, 1)
    assert type(model.modality["audio"]) is Patches
    assert model.num_latents == 8


def test_every_call_creates_new_layers():
    layer = keras.layers.Dense(3)
    config = Config(Model, modality=None, attend=layer)
    first, second = config().attend, config().attend
    assert first is not second
    assert first is not layer
    first(keras.ops.ones((1, 2)))
    assert first.weights
    assert not second.weights
    assert not layer.weights


def test_more_arguments_are_used_as_they_are():
    layer = keras.layers.Dense(3)
    model = _config()(num_latents=5, attend=layer)
    assert (model.num_latents, model.attend) == (5, layer)


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        ("num_latents", 3, lambda m: m.num_latents),
        ("modality.image.shape", (4, 4, 1), lambda m: m.modality["image"].shape),
        ("modality.image.num_bands", 9, lambda m: m.modality["image"].num_bands),
        ("modality.image.patch_size", 2, lambda m: m.modality["image"].patch_size),
        ("rates.image", 0.3, lambda m: m.rates["image"]),
        ("attend.width", 7, lambda m: m.attend.width),
        ("attend.inner.units", 6, lambda m: m.attend.inner.units),
        ("attend.dtype", "bfloat16", lambda m: m.attend.dtype_policy.name),
    ],
)
def test_replaces(path, value, found):
    config = _config()
    before = config.description()
    replaced = config.replace({path: value})
    assert found(replaced()) == value != found(config())
    assert config.description() == before
    assert path in config.paths()


def test_replaces_with_objects_and_their_arguments():
    config = _config().replace(
        {
            "modality": Config(Patches, shape=(2,)),
            "modality.num_bands": 1,
            "attend.inner": keras.layers.Dense(11),
            "attend.inner.use_bias": False,
        }
    )
    model = config()
    assert (model.modality.shape, model.modality.num_bands) == ((2,), 1)
    assert (model.attend.inner.units, model.attend.inner.use_bias) == (11, False)


def test_a_layer_gets_all_its_values_at_once():
    attend = keras.layers.MultiHeadAttention(num_heads=2, key_dim=4, value_dim=3)
    config = Config(Pair, layer=Halves(total=8, part=4), other=attend)
    layer = config.replace({"layer.part": 5, "layer.total": 10})().layer
    assert (layer.total, layer.part) == (10, 5)
    with pytest.raises(ValueError, match=r"layer.part=5.*must be twice"):
        config.replace({"layer.part": 5})
    # An initializer is set as a whole.
    replaced = config.replace({"other.kernel_initializer": "zeros"})
    initializer = replaced().other.get_config()["kernel_initializer"]
    assert initializer["class_name"] == "Zeros"
    assert "other.kernel_initializer" in replaced.paths()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("num_latent", "'num_latents'"),
        ("modality.image.num_band", "'modality.image.num_bands'"),
        ("modality.imag.num_bands", "'modality.image'"),
        ("num_bands", "'modality.image.num_bands' or 'modality.audio.num_bands'"),
        ("attend.inner.unit", "'attend.inner.units'"),
        ("num_latents.x", "'num_latents' is 8"),
        ("zzz", "modality, num_latents, attend, rates"),
    ],
)
def test_unknown_names(path, expected):
    with pytest.raises(ValueError, match="Received") as error:
        _config().replace({path: 1})
    assert expected in str(error.value)
    assert path in str(error.value)


def test_unknown_arguments():
    with pytest.raises(ValueError, match="an argument of `Model`.*'num_latents'"):
        Config(Model, num_latent=3)
    assert Config(functools.partial(dict, a=1), b=2)() == {"a": 1, "b": 2}


def test_arguments_of_keras_classes():
    config = Config(keras.optimizers.AdamW, learning_rate=1e-3, global_clipnorm=1.0)
    assert config().global_clipnorm == 1.0
    assert config.accepts("weight_decay")
    assert not config.accepts("weight_decays")
    with pytest.raises(ValueError, match="Did you mean 'global_clipnorm'"):
        config.replace({"global_clip_norm": 1.0})
    with pytest.raises(ValueError, match="Did you mean 'units'"):
        Config(keras.layers.Dense, unit=3)
    assert Config(keras.layers.Dense, units=3, name="d", dtype="bfloat16")().name == "d"


def test_values_that_a_constructor_refuses():
    with pytest.raises(ValueError, match=r"`Outer`.*attend.width=0.*be positive"):
        _config().replace({"attend.width": 0})
    with pytest.raises(ValueError, match=r"attend.width='a'.*not supported"):
        _config().replace({"attend.width": "a"})
    with pytest.raises(ValueError, match="`Patches` must be called with valid arg"):
        Config(Patches)()
    with pytest.raises(ValueError, match="`width` must be positive"):
        Config(Outer, inner=None, width=0)()


def test_rejects_uncallable_values_and_built_layers():
    with pytest.raises(TypeError, match="`cls` must be a class or a function"):
        Config("Image")
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    with pytest.raises(ValueError, match="must not have weights"):
        Config(Model, modality={"image": layer})


def test_paths_have_the_values():
    paths = _config().paths()
    assert paths["num_latents"] == 8
    assert paths["modality.image.shape"] == (8, 8, 1)
    assert paths["attend.inner.units"] == 3
    assert paths["attend.dtype"] == "float32"
    assert "modality" not in paths


def test_equality_representation_and_description():
    config = _config()
    assert config == _config()
    assert config == copy.deepcopy(config)
    assert config == pickle.loads(pickle.dumps(config))  # noqa: S301
    assert config != config.replace({"attend.inner.units": 4})
    assert config != "config"
    text = repr(Config(Patches, shape=(2,), num_bands=np.int64(3)))
    assert text.startswith("Config(Patches, shape=(2,), num_bands=")
    description = Config(Patches, shape=(2,), num_bands=np.int64(3)).description()
    assert json.loads(json.dumps(description)) == {
        "class": f"{__name__}.Patches",
        "arguments": {"shape": [2], "num_bands": 3},
    }
    json.dumps(config.description())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1),
        ("a=1e-3", 1e-3),
        ("a= -2 ", -2),
        ("a=true", True),
        ("a=False", False),
        ("a=none", None),
        ("a=null", None),
        ("a=(8,8,1)", (8, 8, 1)),
        ("a=[1, 2]", [1, 2]),
        ('a={"video": 0.3}', {"video": 0.3}),
        ("a=relu", "relu"),
        ("a='1'", "1"),
        ("a=x=y", "x=y"),
        ("a=", ""),
    ],
)
def test_parses(text, value):
    parsed = parse_overrides([text])["a"]
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["epochs"], "form `path=value`"),
        (["=3"], "form `path=value`"),
        (["model..x=3"], "form `path=value`"),
        (["a=1", "a=2"], "'a' twice"),
        (["a=(1,2"], "Close its brackets"),
    ],
)
def test_refuses_other_texts(texts, message):
    with pytest.raises(ValueError, match=message):
        parse_overrides(texts)
