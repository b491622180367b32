"""Tasks with an output for every point of a grid: values, such as depth, or classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from keras_perceiver._checks import check_grid, check_positive
from keras_perceiver.layers.composite import check_template
from keras_perceiver.models import reports
from keras_perceiver.models.decoder import (
    PerceiverDecoder,
    check_indices,
    decoder_of,
    serialized_template,
)
from keras_perceiver.models.dense_reports import RegressionReport, SegmentationReport
from keras_perceiver.models.metrics import R2, MeanIoU
from keras_perceiver.models.tasks.base import (
    TargetSpec,
    Task,
    check_encoder,
    check_is_one_target,
)
from keras_perceiver.models.tasks.classification import (
    LOSSES_OF_VALUES,
    ClassNames,
    check_labels,
)

if TYPE_CHECKING:
    from keras_perceiver._typing import Preprocessors
    from keras_perceiver.models.encoder import Perceiver


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
        if self._has_grid(weights):
            return self._wanted(x, weights)
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
    num_inputs = encoder.modality.num_inputs if _is_single(encoder) else None
    if queries.uses_inputs:
        number = queries.num_queries(num_inputs)
        # Other queries may follow those that are made of inputs.
        own = encoder.modality.grid if number == num_inputs is not None else (number,)
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


def _is_single(encoder):
    return not isinstance(encoder.modality, dict)


@keras.saving.register_keras_serializable(package="keras_perceiver")
class PerceiverDensePredictor(DenseTask):
    """Perceiver IO with values for every point of a grid, such as depth or colors.

    The default loss is the mean squared error, the default metric the coefficient of
    determination, R2.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2107.14795), section 3.2.

    Args:
        encoder: `Perceiver`, the model that turns raw inputs into latents.
        num_channels: Integer, values per point.
        decoder: `PerceiverDecoder`, not built, whose settings the decoder of the model
            has, such as `PerceiverDecoder(PositionQueries((64, 64)))`.
        grid: Tuple of integers, the lengths of the axes of the outputs. Defaults to that
            of the queries.
        use_indices: Boolean. `True` gives the model a further input `"indices"` of shape
            `(batch, num_outputs)`, the numbers of the points that are computed, last
            axis of the grid fastest. Targets are those of the whole grid.
        preprocessor: Preprocessor that turns files into raw inputs, or dict of these by
            the modality's name. It is saved with the model.
        **kwargs: `name` and `trainable`, as for every Keras model.

    Call arguments:
        inputs: The inputs of the encoder, with `use_indices` in a dict with the indices.
        training: Boolean, whether dropout is active.

    Returns:
        Float32 tensor of shape `(batch, *grid, num_channels)`, with `use_indices`
        `(batch, num_outputs, num_channels)`.

    Raises:
        TypeError: if `encoder` is not a `Perceiver`, or `decoder` of another class.
        ValueError: if a size is not positive, if `grid` has another number of points
            than the decoder has queries, if the inputs of a call, targets or weights do
            not fit, or if a target is not finite.

    Example:

    >>> encoder = Perceiver(
    ...     Image((32, 32, 3), num_bands=6), num_latents=16, latent_dim=64, num_blocks=2
    ... )
    >>> decoder = PerceiverDecoder(PositionQueries((32, 32), num_bands=6))
    >>> model = PerceiverDensePredictor(encoder, num_channels=1, decoder=decoder)
    >>> tuple(model(keras.random.normal((2, 32, 32, 3))).shape)
    (2, 32, 32, 1)
    """

    score = "r2"

    def __init__(
        self,
        encoder: Perceiver,
        num_channels: int,
        decoder: PerceiverDecoder,
        grid: tuple[int, ...] | None = None,
        use_indices: bool = False,
        preprocessor: Preprocessors | None = None,
        **kwargs: Any,
    ) -> None:
        check_positive(num_channels=num_channels)
        super().__init__(
            *(encoder, num_channels, decoder, grid, use_indices, preprocessor), **kwargs
        )
        self.num_channels = num_channels

    def default_loss(self):
        return keras.losses.MeanSquaredError()

    def default_metrics(self):
        return [R2()]

    @property
    def target_spec(self):
        shape = (*self.grid, self.num_channels)
        return TargetSpec(shape, "float32", -np.inf, np.inf)

    def check_targets(self, targets):
        self._check_target_shape(targets)
        if np.isfinite(targets).all():
            return
        raise ValueError(
            "Targets must be finite numbers. Received: "
            f"{np.count_nonzero(~np.isfinite(targets))} that are not. Correct them, or "
            "give them a `sample_weight` of 0 and a finite value."
        )

    def serving_outputs(self, y_pred):
        """Returns the values, as `"outputs"`."""
        return {"outputs": y_pred}

    def report(self, y_true, y_pred):
        """Returns a `RegressionReport`."""
        return RegressionReport(y_true, y_pred)

    def get_config(self):
        return {**super().get_config(), "num_channels": self.num_channels}


@keras.saving.register_keras_serializable(package="keras_perceiver")
class PerceiverSegmenter(ClassNames, DenseTask):
    """Perceiver IO with a class for every point of a grid: semantic segmentation.

    The default loss is the cross-entropy, the default metric the mean over the classes
    of intersection over union.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2107.14795), section 3.2.

    Args:
        encoder: `Perceiver`, the model that turns raw inputs into latents.
        num_classes: Integer, number of logits per point.
        decoder: `PerceiverDecoder`, not built, whose settings the decoder of the model
            has, such as `PerceiverDecoder(PositionQueries((64, 64)))`.
        grid: Tuple of integers, the lengths of the axes of the outputs. Defaults to that
            of the queries.
        use_indices: Boolean, see `PerceiverDensePredictor`.
        ignore_class: Integer, a label that loss and metric leave out, or `None`.
        preprocessor: Preprocessor that turns files into raw inputs, or dict of these by
            the modality's name. It is saved with the model.
        class_names: Sequence of strings, the name of each class. Defaults to their
            numbers.
        **kwargs: `name` and `trainable`, as for every Keras model.

    Call arguments:
        inputs: The inputs of the encoder, with `use_indices` in a dict with the indices.
        training: Boolean, whether dropout is active.

    Returns:
        Logits, float32 tensor of shape `(batch, *grid, num_classes)`, with `use_indices`
        `(batch, num_outputs, num_classes)`.

    Raises:
        TypeError: if `encoder` is not a `Perceiver`, or `decoder` of another class.
        ValueError: if a size is not positive, if there is one class only, if `grid` has
            another number of points than the decoder has queries, if the inputs of a
            call, targets or weights do not fit, or if a label is outside the classes and
            not `ignore_class`.

    Example:

    >>> encoder = Perceiver(
    ...     Image((32, 32, 3), num_bands=6), num_latents=16, latent_dim=64, num_blocks=2
    ... )
    >>> decoder = PerceiverDecoder(PositionQueries((32, 32), num_bands=6))
    >>> model = PerceiverSegmenter(encoder, num_classes=4, decoder=decoder)
    >>> tuple(model(keras.random.normal((2, 32, 32, 3))).shape)
    (2, 32, 32, 4)
    """

    score = "mean_iou"

    def __init__(
        self,
        encoder: Perceiver,
        num_classes: int,
        decoder: PerceiverDecoder,
        grid: tuple[int, ...] | None = None,
        use_indices: bool = False,
        ignore_class: int | None = None,
        preprocessor: Preprocessors | None = None,
        class_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        check_positive(num_classes=num_classes)
        if num_classes == 1:
            raise ValueError(
                "`num_classes` must be at least 2, since every point has one class. "
                "Received: num_classes=1. Count the background as a class."
            )
        super().__init__(
            *(encoder, num_classes, decoder, grid, use_indices, preprocessor), **kwargs
        )
        self.num_classes = num_classes
        self.ignore_class = ignore_class
        self.class_names = class_names

    def default_loss(self):
        return keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, ignore_class=self.ignore_class
        )

    def default_metrics(self):
        return [MeanIoU(self.num_classes, self.ignore_class)]

    @property
    def target_spec(self):
        last = self.num_classes - 1
        return TargetSpec(self.grid, "int32", 0, last, self.ignore_class)

    def check_targets(self, targets):
        one_per_class = (*self.grid, self.num_classes)
        takes_values = isinstance(self.used_loss(), LOSSES_OF_VALUES)
        others = [one_per_class] if takes_values else []
        self._check_target_shape(targets, (*self.grid, 1), *others)
        ignored = "" if self.ignore_class is None else f", or {self.ignore_class}"
        rule = f"Labels must be in [0, {self.num_classes}), the classes{ignored}."
        check_labels(self.target_spec, rule, targets)

    def serving_outputs(self, y_pred):
        """Returns the probabilities and the most probable class of every point."""
        return {
            "probabilities": ops.softmax(y_pred),
            "classes": ops.cast(ops.argmax(y_pred, axis=-1), "int32"),
        }

    def mean_prediction(self, y_preds):
        """Returns the logarithm of the mean of the probabilities, as logits."""
        return reports.mean_of_softmax(y_preds)

    def report(self, y_true, y_pred):
        """Returns a `SegmentationReport`."""
        return SegmentationReport.of(y_true, y_pred, self.names(), self.ignore_class)

    def get_config(self):
        return {**super().get_config(), "ignore_class": self.ignore_class}
