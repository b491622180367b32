"""The output queries of several modalities, as one array."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_perceiver._checks import check_positive
from keras_perceiver.layers.arrays import learned_array_initializer
from keras_perceiver.models.queries import Queries


@keras.saving.register_keras_serializable(package="keras_perceiver")
class ModalityQueries(Queries):
    """The queries of several modalities, one after the other, as one array.

    Each modality has a learned vector that pads its queries to a common width, the widest
    one plus `modality_dim`: it identifies the modality of an output.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2107.14795), section 4.3 (multimodal
        autoencoding).

    Args:
        queries: Dict of `Queries` by the modality's name.
        modality_dim: Integer, width of the learned vector of the widest modality.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        indices: See `Queries`; the outputs of the first modality come first.
        inputs: See `Queries`.

    Returns:
        Tensor of shape `(batch, num_outputs, query_dim)`.

    Raises:
        TypeError: if `queries` is not a dict of `Queries`.
        ValueError: if it is empty, or if `modality_dim` is not positive.

    Example:

    >>> queries = ModalityQueries(
    ...     {
    ...         "image": PositionQueries((8, 8), num_bands=4),  # 64 queries, 18 wide
    ...         "label": LearnedQueries(num_queries=1, query_dim=20),
    ...     }
    ... )
    >>> queries.num_queries()
    65
    >>> tuple(queries(np.array([[63, 64]])).shape)
    (1, 2, 22)
    """

    def __init__(
        self, queries: dict[str, Queries], modality_dim: int = 2, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        is_dict = isinstance(queries, dict)
        if not is_dict or not all(isinstance(q, Queries) for q in queries.values()):
            raise TypeError(
                "`queries` must be a dict of query layers by the modality's name. "
                f"Received: queries={queries!r} of type {type(queries).__name__}. "
                'Pass for example `{"label": LearnedQueries(1, 1024)}`.'
            )
        if not queries:
            raise ValueError(
                "`queries` must have at least one modality. Received: queries={}. Add one."
            )
        check_positive(modality_dim=modality_dim)
        self.queries = dict(queries)
        self.modality_dim = modality_dim

    @property
    def uses_inputs(self):
        return any(queries.uses_inputs for queries in self.queries.values())

    def spans(self, num_inputs=None):
        """Returns a dict from the name of each modality to the range of its outputs."""
        spans, start = {}, 0
        for name, queries in self.queries.items():
            stop = start + queries.num_queries(num_inputs)
            spans[name] = range(start, stop)
            start = stop
        return spans

    def num_queries(self, num_inputs=None):
        numbers = [q.num_queries(num_inputs) for q in self.queries.values()]
        return None if None in numbers else sum(numbers)

    def query_dim(self, input_dim=None):
        widths = [queries.query_dim(input_dim) for queries in self.queries.values()]
        return max(widths) + self.modality_dim

    def build(self, indices_shape, inputs_shape=None):
        input_dim = None if inputs_shape is None else inputs_shape[-1]
        self.modality_features = {}
        for name, queries in self.queries.items():
            if not queries.built:
                shapes = (inputs_shape,) if queries.uses_inputs else ()
                queries.build(indices_shape, *shapes)
            padding = self.query_dim(input_dim) - queries.query_dim(input_dim)
            self.modality_features[name] = self.add_weight(
                shape=(padding,),
                initializer=learned_array_initializer(),
                name=f"{name}_features",
            )
        self.restore_inner_settings()

    def call(self, indices, inputs=None):
        num_inputs = None if inputs is None else inputs.shape[1]
        if indices is None:
            indices = ops.arange(self.num_queries(num_inputs), dtype="int32")[None]
        found = None
        for name, span in self.spans(num_inputs).items():
            queries = self.queries[name]
            # Those of another modality are left out below.
            own = ops.clip(indices - span.start, 0, len(span) - 1)
            rows = queries(own, inputs) if queries.uses_inputs else queries(own)
            rows = ops.cast(rows, self.compute_dtype)
            features = ops.cast(self.modality_features[name], self.compute_dtype)
            shape = (*ops.shape(rows)[:2], features.shape[0])
            features = ops.broadcast_to(features, shape)
            rows = ops.concatenate([rows, features], axis=-1)
            if found is None:
                found = rows
            else:
                found = ops.where((indices >= span.start)[:, :, None], rows, found)
        return found
