import keras_tuner as kt
import pytest

from keras_perceiver.tuning import space

pytestmark = pytest.mark.one_backend


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ([], "different values of one kind"),
        ([1, "a"], "different values of one kind"),
        ([1, 1], "different values of one kind"),
        ((1, 2, 3), "two numbers"),
        ((2, 1), "the smaller one first"),
        ((True, False), "two numbers"),
        (None, "numbers, booleans or strings"),
    ],
)
def test_bad_settings_are_refused(setting, text):
    with pytest.raises(ValueError, match=text):
        space.checked({"latent_dim": setting})


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"Received: \['latents'\].*'num_latents'"):
        space.check_names("space", {"latents": 3}, ["num_latents", "latent_dim"])
    with pytest.raises(ValueError, match="Use `cross_attends_per_block`, such as 0.0"):
        space.check_names("space", {"num_cross_attends": 1}, ["use_cross_attends"])


def test_settings_become_hyperparameters():
    settings = space.checked(
        {
            "latent_dim": [32, 64],
            "dropout": [0, 0.5],
            "share_weights": [True, False],
            "num_blocks": (2, 5),
            "learning_rate": (1e-4, 1e-2),
            "weight_decay": (0, 0.5),
            "optimizer": ["adamw"],
            "num_latents": 16,
        }
    )
    hp = kt.HyperParameters()
    defaults = {name: space.typical(setting) for name, setting in settings.items()}
    values = {n: space.declare(hp, n, settings[n], defaults[n]) for n in settings}
    assert values == pytest.approx(
        {
            "latent_dim": 32,
            "dropout": 0.0,
            "share_weights": True,
            "num_blocks": 3,
            "learning_rate": 1e-3,
            "weight_decay": 0.25,
            "optimizer": "adamw",
            "num_latents": 16,
        }
    )
    assert values["share_weights"] is True
    kinds = {p.name: type(p).__name__ for p in hp.space}
    assert kinds == {
        "latent_dim": "Choice",
        "dropout": "Choice",
        "share_weights": "Boolean",
        "num_blocks": "Int",
        "learning_rate": "Float",
        "weight_decay": "Float",
        "optimizer": "Fixed",
        "num_latents": "Fixed",
    }
    sampling = {p.name: getattr(p, "sampling", None) for p in hp.space}
    assert (sampling["learning_rate"], sampling["weight_decay"]) == ("log", "linear")


def test_nearest():
    assert space.nearest([32, 64], 60) == 64
    assert space.nearest(["a", "b"], "b") == "b"
    assert space.nearest(["a", "b", "c"], "x") == "b"
    assert space.nearest((1, 5), 9) == 5
    assert space.nearest(3, 9) == 3


def test_possible_values():
    settings = space.checked({"latent_dim": [30, 32], "self_attend.num_heads": [4, 8]})
    defaults = {"latent_dim": 30, "self_attend.num_heads": 8}

    def against(values):
        if values["latent_dim"] % values["self_attend.num_heads"]:
            return "Not divisible."
        return None

    found = space.feasible_values(settings, defaults, against)
    assert found["latent_dim"] == 32
    none = {**settings, "latent_dim": 30}
    with pytest.raises(
        ValueError, match=r"must contain a feasible model.*latent_dim=30.*Not divisible"
    ):
        space.feasible_values(none, defaults, against)


def test_the_smallest_model_is_found_in_a_large_space():
    settings = {name: (1, 1000) for name in ("num_latents", "latent_dim", "num_blocks")}
    many = {f"modality_{i}": [True, False] for i in range(15)}
    settings = {**space.checked(settings), **many}
    defaults = {name: space.typical(setting) for name, setting in settings.items()}

    def against(values):
        size = values["num_latents"] * values["latent_dim"] * values["num_blocks"]
        return "Too large." if size > 1 else None

    assert space.feasible_values(settings, defaults, against)["num_blocks"] == 1
