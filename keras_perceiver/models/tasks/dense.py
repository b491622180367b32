"""The base class of tasks with an output for every point of a grid."""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import ops

from keras_perceiver._checks import check_grid
from keras_perceiver.layers.composite import check_template
from keras_perceiver.models.decoder import (
    PerceiverDecoder,
    check_indices,
    decoder_of,
    serialized_template,
)
from keras_perceiver.models.tasks.base import (
    Task,
    check_encoder,
    check_is_one_target,
    no_class_weight,
)


class DenseTask(Task):
    """A task with an output for every query of a decoder, or for some of them.

    Args:
        encoder: `Perceiver`.
        output_dim: Integer, width of an output.
        decoder: `PerceiverDecoder`, not built.
        grid: Tuple of integers, or `None`.
        use_indices: Boolean.
        preprocessor: See `Task`.
        **kwargs: `name` and `trainable`.
    """

    def __init__(
        self,
        encoder,
        output_dim,
        decoder,
        grid=None,
        use_indices=False,
        preprocessor=None,
        **kwargs,
    ):
        check_encoder(encoder, type(self))
        check_template("decoder", decoder, PerceiverDecoder)
        grid = _grid(grid, decoder.queries, encoder)
        decoder = decoder_of(decoder, output_dim, encoder.dtype_policy)
        inputs = encoder.input
        if decoder.queries.uses_inputs:
            latents, elements, _ = encoder.encode(inputs)
            arguments = {"inputs": elements}
        else:
            latents, arguments = encoder(inputs), {}
        if use_indices:
            if not isinstance(inputs, dict):
                inputs = {encoder.inputs[0].name: inputs}
            indices = keras.Input((None,), dtype="int32", name="indices")
            inputs = {**inputs, "indices": indices}
            outputs = decoder(latents, indices=indices, **arguments)
        else:
            outputs = decoder(latents, **arguments)
            outputs = keras.layers.Reshape(
                (*grid, output_dim), dtype="float32", name="grid"
            )(outputs)
        super().__init__(encoder, outputs, preprocessor, inputs=inputs, **kwargs)
        self.decoder = decoder
        self.grid = grid
        self.use_indices = use_indices

    def check_inputs(self, inputs):
        super().check_inputs(inputs)
        indices = inputs.get("indices") if isinstance(inputs, dict) else None
        if not self.use_indices:
            if indices is not None and "indices" not in self._input_names:
                raise ValueError(
                    "Only a model with `use_indices=True` takes `indices`. Received: "
                    "inputs with `indices`. Remove them, or create the model with it."
                )
            return
        if indices is None:
            raise ValueError(
                "The inputs must have `indices`, the numbers of the outputs that are "
                "wanted. Received: none. Add an integer array `(batch, num_outputs)`."
            )
        if isinstance(indices, list):  # without numbers
            indices = np.array(indices)
        check_indices(indices.shape, indices.dtype)
        number = math.prod(self.grid)
        if isinstance(indices, np.ndarray) and indices.size:
            low, high = indices.min(), indices.max()
            if low < 0 or high >= number:
                raise ValueError(
                    f"`indices` must be in [0, {number}), the outputs of the grid "
                    f"{self.grid}. Received: indices from {low} to {high}. Correct them."
                )

    @property
    def index_inputs(self):
        return {"indices": math.prod(self.grid)} if self.use_indices else {}

    def has_values_to_check(self, name):
        return name in self.index_inputs or super().has_values_to_check(name)

    @property
    def _has_loss_of_points(self):
        """Whether the loss is one of Keras, which compares targets point by point."""
        return self.used_loss().__module__.partition(".")[0] == "keras"

    def _check_target_shape(self, targets, *others):
        """Raises `ValueError` unless targets are those of every point of the grid.

        Args:
            targets: NumPy array, or a nested structure of arrays.
            *others: Shapes of an example that are valid besides that of `target_spec`.
        """
        check_is_one_target(targets)
        shape = self.target_spec.shape
        if targets.shape[1:] in (shape, *others):
            return
        # A loss of the user may compare anything.
        takes_any = not self.use_indices or self._has_grid(targets)
        if takes_any and not self._has_loss_of_points:
            return
        fix = "Reshape them, or create the model for their shape."
        if self.use_indices:
            fix = "Pass those of all points: the model takes the ones at `indices`."
        elif shape == (*targets.shape[1:], 1):
            fix = "Add the axis of the channel: `targets[..., None]`."
        raise ValueError(
            f"Targets must be those of the whole grid, of shape {_with_batch(shape)}. "
            f"Received: targets of shape {targets.shape}. {fix}"
        )

    def _has_grid(self, array):
        return tuple(array.shape[1 : 1 + len(self.grid)]) == self.grid

    def check_sample_weight(self, sample_weight):
        shape = tuple(getattr(sample_weight, "shape", ()))
        valid = ((), (1,), self.grid, (*self.grid, 1))
        if not self._has_loss_of_points and not self.use_indices:
            return
        if not shape or shape[1:] not in valid:
            raise ValueError(
                "Sample weights must be one per example, of shape `(batch,)`, or one per "
                f"point of the whole grid, of shape {_with_batch(self.grid)}. Received: "
                f"shape {shape}. Correct them."
            )

    def check_class_weight(self, class_weight):
        raise no_class_weight(
            class_weight, "one per point, such as `np.array(weights)[labels]`"
        )

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, **kwargs):
        return super().compute_loss(
            x, self._wanted(x, y), y_pred, self._weights(x, sample_weight), **kwargs
        )

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return super().compute_metrics(
            x, self._wanted(x, y), y_pred, self._weights(x, sample_weight)
        )

    def _wanted(self, x, targets):
        """Returns the targets of the outputs that are wanted, of those of the grid."""
        if not self.use_indices or targets is None:
            return targets
        indices = x["indices"]
        rest = tuple(targets.shape[1 + len(self.grid) :])
        number = math.prod(self.grid)
        flat = ops.reshape(targets, (-1, number, math.prod(rest)))
        found = ops.take_along_axis(
            flat, ops.cast(indices, "int32")[:, :, None], axis=1
        )
        return ops.reshape(found, (-1, ops.shape(indices)[1], *rest))

    def _weights(self, x, sample_weight):
        """Returns the weights of the outputs that are wanted: one for each."""
        if sample_weight is None or not self._has_loss_of_points:
            return self._wanted(x, sample_weight)
        weights = ops.convert_to_tensor(sample_weight)
        # By their rank, since TensorFlow may know no lengths.
        rank = 1 + len(self.grid)
        if len(weights.shape) > rank:
            weights = ops.squeeze(weights, axis=-1)
        elif len(weights.shape) < rank:
            weights = ops.reshape(weights, (-1, *(1 for _ in self.grid)))
        weights = ops.broadcast_to(weights, (ops.shape(weights)[0], *self.grid))
        return self._wanted(x, weights)

    def get_config(self):
        return {
            **super().get_config(),
            "decoder": serialized_template(self.decoder),
            "grid": self.grid,
            "use_indices": self.use_indices,
        }


def _with_batch(shape):
    return f"`({', '.join(map(str, ('batch', *shape)))})`"


def _grid(grid, queries, encoder):
    """Returns the grid of the outputs: what is given, or that of the queries."""
    grid = None if grid is None else check_grid(grid)
    numbers = [modality.num_inputs for modality in encoder.modalities.values()]
    num_inputs = None if None in numbers else sum(numbers)
    if queries.uses_inputs:
        number = queries.num_queries(num_inputs)
        # Other queries may follow those that are made of inputs.
        is_one_each = num_inputs is not None and number == num_inputs
        is_single = len(numbers) == 1
        own = encoder.modality.grid if is_one_each and is_single else (number,)
    else:
        number = queries.num_queries()
        own = getattr(queries, "grid", (number,))
    grid = own if grid is None else grid
    if grid is None or None in grid or number is None or math.prod(grid) != number:
        raise ValueError(
            "`grid` must have as many points as the decoder has queries. Received: "
            f"grid={grid} and {number} queries. Give one length per axis of the outputs."
        )
    return tuple(grid)
