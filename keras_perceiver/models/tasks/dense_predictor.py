"""Tasks with an output for every point of a grid: values, such as depth, or classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from keras_perceiver._checks import check_positive
from keras_perceiver.models import reports
from keras_perceiver.models.decoder import (
    PerceiverDecoder,
    assign_body,
    decoder_of,
)
from keras_perceiver.models.dense_reports import RegressionReport, SegmentationReport
from keras_perceiver.models.metrics import R2, Accuracy, MeanIoU
from keras_perceiver.models.tasks.base import TargetSpec
from keras_perceiver.models.tasks.classification import (
    ClassNames,
    check_labels,
    takes_values,
)
from keras_perceiver.models.tasks.dense import DenseTask

if TYPE_CHECKING:
    from keras_perceiver._typing import Preprocessors
    from keras_perceiver.models.encoder import Perceiver


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

    @classmethod
    def from_preset(cls, name, num_classes=None, load_weights=True, **overrides):
        """Creates a segmenter from a folder or hub that `save_to_preset` has written.

        Args:
            name: See `Task.from_preset`.
            num_classes: Integer, number of classes. Another number than that of the
                preset gives a new head.
            load_weights: See `Task.from_preset`.
            **overrides: See `Task.from_preset`.

        Returns:
            `PerceiverSegmenter`.

        Raises:
            ValueError: see `Task.from_preset`.
            FileNotFoundError: see `Task.from_preset`.
        """
        return cls._loaded(name, num_classes, load_weights, overrides)

    def with_num_classes(self, num_classes):
        """Returns a model of other classes: with the same encoder, and a new head.

        Args:
            num_classes: Integer, number of logits per point.
        """
        decoder = self.decoder
        model = type(self)(
            self.encoder,
            num_classes,
            decoder_of(decoder, self.num_classes, decoder.dtype_policy),
            self.grid,
            self.use_indices,
            self.ignore_class,
            self.preprocessor,
        )
        assign_body(model.decoder, decoder)
        return model

    def default_loss(self):
        return keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, ignore_class=self.ignore_class
        )

    def default_metrics(self):
        return [MeanIoU(self.num_classes, self.ignore_class)]

    def accuracy(self, name):
        return Accuracy(name, ignore_class=self.ignore_class)

    @property
    def target_spec(self):
        last = self.num_classes - 1
        return TargetSpec(self.grid, "int32", 0, last, self.ignore_class)

    def check_targets(self, targets):
        one_per_class = (*self.grid, self.num_classes)
        others = [one_per_class] if takes_values(self.used_loss()) else []
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
