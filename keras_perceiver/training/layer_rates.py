"""Learning rates that differ by layer, for fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_perceiver.training.tracking import OptimizerWrapper

if TYPE_CHECKING:
    from keras_perceiver.models import Perceiver, Task


def layer_rates(model: Perceiver | Task, decay: float) -> dict[str, float]:
    """Returns factors of the learning rate that fall from the last layer to the first.

    The layers of a task outside of the encoder keep the learning rate. That of the last
    self-attend is multiplied by `decay`, that of the layer before it by `decay` squared,
    and so on, in the order in which layers are first used, to the latents and modalities.

    Reference:
        [Howard and Ruder, 2018](https://arxiv.org/abs/1801.06146), section 3.2.

    Args:
        model: `Perceiver` or a task.
        decay: Float in `(0, 1]`.

    Returns:
        Dict from the beginnings of the paths of trainable variables to factors, for
        `LayerwiseOptimizer`.

    Raises:
        ValueError: if `decay` is out of range.

    Example:

    >>> model = PerceiverClassifier.from_preset("digits")
    >>> rates = layer_rates(model, 0.5)
    >>> rates["latent_array"] < rates["iterative_attention/cross_attend_0"] < 1
    True
    """
    check_decay(decay)
    encoder: Any = getattr(model, "encoder", model)
    trunk = encoder.iterative_attention
    groups = [["byte_array", "latent_array"]]
    for i in range(max(len(trunk.cross_attends), len(trunk.latent_transformers))):
        if i < len(trunk.cross_attends):
            groups.append([f"{trunk.name}/{trunk.cross_attends[i].name}"])
        if i < len(trunk.latent_transformers):
            transformer = trunk.latent_transformers[i]
            groups += [
                [f"{trunk.name}/{transformer.name}/{layer.name}"]
                for layer in transformer.self_attends
            ]
    return {
        path: decay ** (len(groups) - i)
        for i, paths in enumerate(groups)
        for path in paths
        if any(_fits(path, weight.path) for weight in model.trainable_weights)
    }


def check_decay(decay, name="decay"):
    """Raises `ValueError` unless `decay`, an argument of this name, is in `(0, 1]`."""
    if not 0 < decay <= 1:
        raise ValueError(
            f"`{name}` must be in (0, 1]. Received: {name}={decay}. Choose 0.5 to 0.9."
        )


@keras.saving.register_keras_serializable(package="keras_perceiver")
class LayerwiseOptimizer(OptimizerWrapper):
    """Wraps an optimizer so that layers are updated by a part of its updates.

    The change of a variable, weight decay included, is multiplied by its factor. So it
    is as if its learning rate were multiplied, whatever the optimizer.

    Args:
        inner_optimizer: `keras.optimizers.Optimizer` that computes the updates.
        rates: Mapping from beginnings of paths of variables to factors in `[0, 1]`, such
            as `layer_rates` returns. The longest one that fits a path counts, and other
            variables have the whole update.
        name: String.

    Raises:
        ValueError: if a factor is out of range, or, when it is built, if a path is that
            of no trainable variable.

    Example:

    >>> model = PerceiverClassifier.from_preset("digits")
    >>> rates = layer_rates(model, decay=0.8)
    >>> model.compile(LayerwiseOptimizer(keras.optimizers.AdamW(1e-3), rates))
    """

    def __init__(
        self,
        inner_optimizer: keras.Optimizer,
        rates: Mapping[str, float],
        name: str = "layerwise_optimizer",
    ) -> None:
        super().__init__(inner_optimizer, name)
        wrong = {path: rate for path, rate in rates.items() if not 0 <= rate <= 1}
        if wrong:
            raise ValueError(
                f"`rates` must have factors from 0 to 1. Received: {wrong}. Give those "
                "of `layer_rates`, or multiply the learning rate."
            )
        self.rates = dict(rates)

    def build(self, variables):
        unused = [
            path
            for path in self.rates
            if not any(_fits(path, v.path) for v in variables)
        ]
        if unused:
            raise ValueError(
                "`rates` must name trainable variables by the beginning of their paths. "
                f"Received: {unused}. The paths are {[v.path for v in variables[:20]]}."
            )
        super().build(variables)

    def apply(self, grads, trainable_variables=None):
        if not self.built:
            self.build(list(trainable_variables))
        rates = [self._rate(v.path) for v in self.trained_variables]
        # Copies, since PyTorch updates weights in place.
        scaled = [
            (v, rate, ops.copy(v))
            for v, rate in zip(self.trained_variables, rates, strict=True)
            if rate != 1
        ]
        self.inner_optimizer.apply(grads, trainable_variables)
        self.count_step()
        for variable, rate, before in scaled:
            variable.assign(before + rate * (variable - before))

    def _rate(self, path):
        fitting = [beginning for beginning in self.rates if _fits(beginning, path)]
        return self.rates[max(fitting, key=len)] if fitting else 1.0

    def get_config(self):
        return {**super().get_config(), "rates": self.rates}


def _fits(beginning, path):
    return path == beginning or path.startswith(f"{beginning}/")
