"""The rule that losses and metrics of logits must take logits."""

import inspect

import keras


def check_takes_logits(argument, given):
    """Raises `ValueError` if a loss or metric takes probabilities.

    Args:
        argument: String, the argument of `compile`.
        given: Loss or metric, its name, or a nested structure of these.
    """
    module = keras.losses if argument == "loss" else keras.metrics
    for item in keras.tree.flatten(given):
        if _takes_probabilities(item, module):
            raise ValueError(
                f"The outputs of the model are logits, which `{argument}` must take. "
                f"Received: {argument}={_name(item)!r}, which takes probabilities. Use "
                f'the default, `{argument}="auto"`, or an object that takes logits, by '
                "`from_logits=True` or `threshold=0.0`."
            )


def _takes_probabilities(item, module):
    if isinstance(item, str):
        # `accuracy` depends on the shapes, and is that of the largest logit.
        found = getattr(module, item, None)
        if found is None or inspect.isclass(found):
            try:
                found = module.get(item)
            except ValueError:  # Keras' own error is raised by `compile`
                return False
        item = found
    if isinstance(item, keras.losses.Loss | keras.metrics.Metric):
        settings, cls = item.get_config(), type(item)
    elif inspect.isfunction(item):
        parameters = inspect.signature(item).parameters
        settings, cls = {name: x.default for name, x in parameters.items()}, item
    else:
        return False
    is_of_keras = cls.__module__.partition(".")[0] == "keras"
    return settings.get("from_logits") is False or (
        is_of_keras and _compares_with_half(settings)
    )


def _compares_with_half(settings):
    """Whether a metric of Keras with a threshold has that of probabilities."""
    if settings.get("top_k") is not None:
        return False
    thresholds = settings.get("thresholds", settings.get("threshold", 0))
    is_default = thresholds is None and "thresholds" in settings
    return is_default or thresholds in (0.5, [0.5])


def _name(item):
    return item if isinstance(item, str) else getattr(item, "name", item)
