"""Search spaces as plain data: hyperparameters and their possible values."""

import difflib
import itertools
import math
from types import MappingProxyType

import numpy as np

# Hyperparameters of the paper's ablations (tables 5 to 7, figure 6) and of its
# training. The largest values are those of its ImageNet model.
SPACE = MappingProxyType(
    {
        "num_latents": [32, 64, 128, 256, 512],
        "latent_dim": [64, 128, 256, 512, 1024],
        "num_blocks": [1, 2, 4, 8],
        "num_self_attends_per_block": [1, 2, 4, 6],
        "cross_attends_per_block": [0.0, 0.5, 1.0],
        "use_cross_attends_at_start": [False, True],
        "share_weights": [True, False],
        "cross_attend.num_heads": 1,
        "self_attend.num_heads": [1, 2, 4, 8],
        "num_bands": [4, 8, 16, 32, 64],
        "max_resolution_scale": [0.5, 1.0, 2.0],
        "dropout": [0.0, 0.1, 0.2],
        "optimizer": ["adamw", "lamb"],
        "learning_rate": (3e-4, 1e-2),
        "weight_decay": (1e-3, 3e-1),
        "label_smoothing": [0.0, 0.1],
        "batch_size": [32, 64, 128],
    }
)
# Names that set several arguments of a model at once, or one relative to others.
COMBINED = (
    # Cross-attends per block, and at least one in total, as in Perceiver IO.
    "cross_attends_per_block",
    # For all modalities with Fourier features.
    "num_bands",
    # A factor of the resolution of each modality. 1.0 is its Nyquist frequency.
    "max_resolution_scale",
    # For all cross-attends and self-attends.
    "dropout",
)
OF_TRAINING = (
    "optimizer",
    "learning_rate",
    "weight_decay",
    "label_smoothing",
    "batch_size",
    "augmentation",
)
# Arguments of a model that are set by something else
INSTEAD = {
    "num_cross_attends": "`cross_attends_per_block`, such as 0.0 for a single one",
    "dtype": "the argument `precision`",
}
# Only in the space if the modality, the task or the user provides them.
OPTIONAL = ("num_bands", "max_resolution_scale", "label_smoothing", "augmentation")
_MAX_CHECKED = 20_000


def names(encoder):
    """Returns the names that a space may have.

    Args:
        encoder: `keras_perceiver.Config` of a `Perceiver`, whose dotted paths are names.
    """
    paths = set()
    for path in encoder.paths():  # with all their prefixes
        names = path.split(".")
        paths |= {".".join(names[:i]) for i in range(1, len(names) + 1)}
    return sorted({*paths, *COMBINED, *OF_TRAINING} - INSTEAD.keys())


def check_names(argument, given, known):
    """Raises `ValueError` unless all names are known.

    Args:
        argument: String, the name of the argument.
        given: Iterable of strings.
        known: List of strings.
    """
    unknown = sorted(set(given) - set(known))
    if unknown:
        near = difflib.get_close_matches(unknown[0], known)
        fix = f"Did you mean {near}?" if near else f"Choose from {known}."
        if unknown[0] in INSTEAD:
            fix = f"Use {INSTEAD[unknown[0]]}."
        raise ValueError(
            f"`{argument}` must have names of settings. Received: {unknown}. {fix}"
        )


def checked(space):
    """Returns a space with normalized settings.

    Args:
        space: Dict from names to a list of values to choose from, a tuple of two numbers
            (the ends of a range), or a single value.

    Raises:
        ValueError: if a setting is invalid.
    """
    return {name: _checked_setting(name, setting) for name, setting in space.items()}


def _checked_setting(name, setting):
    if isinstance(setting, list):
        kinds = {float if _is_number(v) else type(v) for v in setting}
        if not setting or len(kinds) > 1 or len(set(setting)) < len(setting):
            raise _setting_error(name, setting, "different values of one kind")
        if len(setting) == 1:
            return setting[0]
        has_fractions = any(isinstance(value, float) for value in setting)
        return [float(v) for v in setting] if has_fractions else list(setting)
    if isinstance(setting, tuple):
        if len(setting) != 2 or not all(map(_is_number, setting)):
            raise _setting_error(name, setting, "two numbers")
        low, high = setting
        if not low < high:
            raise _setting_error(name, setting, "two numbers, the smaller one first")
        if all(isinstance(end, int) for end in setting):
            return setting
        return float(low), float(high)
    if not isinstance(setting, (bool, int, float, str)):
        raise _setting_error(name, setting, "numbers, booleans or strings")
    return setting


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _setting_error(name, setting, rule):
    return ValueError(
        "A setting is one value, a list of values to choose from, or the two ends of a "
        f"range as a tuple; it must have {rule}. Received: {name}={setting!r}. For "
        "example {'latent_dim': [64, 128], 'learning_rate': (1e-4, 1e-2), 'num_blocks': "
        "2}."
    )


def is_free(setting):
    """Returns whether a checked setting has several values."""
    return isinstance(setting, (list, tuple))


def declare(hp, name, setting, default):
    """Registers a setting with KerasTuner, and returns its value in this trial.

    Args:
        hp: `keras_tuner.HyperParameters`. A hyperparameter that is already registered
            with this name is kept.
        name: String, name of the setting.
        setting: Setting, as `checked` returns it.
        default: Value in the setting.
    """
    if isinstance(setting, list):
        if isinstance(default, bool):  # in a choice, KerasTuner converts it to a number
            return hp.Boolean(name, default)
        return hp.Choice(name, setting, default=default)
    if isinstance(setting, tuple):
        if isinstance(setting[0], int):
            return hp.Int(name, *setting, default=default)
        sampling = "log" if _is_wide(setting) else "linear"
        return hp.Float(name, *setting, sampling=sampling, default=default)
    return hp.Fixed(name, setting)


def _is_wide(setting):
    return setting[0] > 0 and setting[1] / setting[0] >= 10


def typical(setting):
    """Returns the default value of a setting, from its middle."""
    if isinstance(setting, list):
        return setting[(len(setting) - 1) // 2]
    if isinstance(setting, tuple):
        if isinstance(setting[0], int):
            return sum(setting) // 2
        return math.sqrt(math.prod(setting)) if _is_wide(setting) else sum(setting) / 2
    return setting


def nearest(setting, value):
    """Returns the value of a setting that is nearest to a value."""
    if isinstance(setting, list):
        if _is_number(value) and _is_number(setting[0]):
            return min(setting, key=lambda found: abs(found - value))
        return value if value in setting else typical(setting)
    if isinstance(setting, tuple):
        return min(max(value, setting[0]), setting[1])
    return setting


def feasible_values(space, defaults, infeasibility):
    """Returns the values of a feasible model: the defaults, if they are feasible.

    Args:
        space: Space, as `checked` returns it.
        defaults: Dict with one value per name.
        infeasibility: Callable that takes a dict of values and returns why the model is
            infeasible, or `None`.

    Raises:
        ValueError: if no model in the space is feasible, with the reason.
    """
    reason = infeasibility(defaults)
    if reason is None:
        return defaults
    rng = np.random.default_rng(0)
    for number, values in enumerate(_all_values(space, defaults, rng)):
        if infeasibility(values) is None:
            return values
        if number == _MAX_CHECKED:
            break
    raise ValueError(
        f"The space must contain a feasible model. Received: {_text(space)} without "
        f"one. With {_text(defaults)}: {reason} Change the space, or raise the limits."
    )


def _all_values(space, defaults, rng):
    """Yields dicts of values: all combinations if they are few, otherwise random ones."""
    ends = {
        name: setting if isinstance(setting, list) else [defaults[name], *setting]
        for name, setting in space.items()
        if is_free(setting)
    }
    if math.prod(map(len, ends.values())) <= _MAX_CHECKED:
        for values in itertools.product(*ends.values()):
            yield {**defaults, **dict(zip(ends, values, strict=True))}
        return
    for pick in (min, max):  # limits allow the smallest model first
        numbers = {n: v for n, v in ends.items() if not isinstance(v[0], (str, bool))}
        yield {**defaults, **{name: pick(v) for name, v in numbers.items()}}
    while True:
        yield {**defaults, **{n: v[rng.integers(len(v))] for n, v in ends.items()}}


def _text(values):
    return ", ".join(f"{name}={value!r}" for name, value in values.items())
