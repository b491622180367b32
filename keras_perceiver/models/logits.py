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
                f'the default, `{argument}="auto"`, or an object with '
                "`from_logits=True`."
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
        return item.get_config().get("from_logits") is False
    if inspect.isfunction(item):
        parameter = inspect.signature(item).parameters.get("from_logits")
        return parameter is not None and parameter.default is False
    return False


def _name(item):
    return item if isinstance(item, str) else getattr(item, "name", item)
