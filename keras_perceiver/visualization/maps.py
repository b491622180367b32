"""Attention maps of the cross-attends of a Perceiver."""

from __future__ import annotations

import math
import numbers
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from keras import ops

from keras_perceiver._checks import check_positive
from keras_perceiver.layers import CrossAttend
from keras_perceiver.models import Perceiver, Task
from keras_perceiver.models.tasks.base import check_model

if TYPE_CHECKING:
    import keras

    from keras_perceiver._typing import Tensor
    from keras_perceiver.modalities import Modality
    from keras_perceiver.models import PerceiverDecoder


def attention_maps(
    model: keras.Model,
    inputs: Any,
    chunk_size: int = 4096,
    elements_mask: np.ndarray | None = None,
) -> AttentionMaps:
    """Runs a model on a batch, and returns the attention maps of its cross-attends.

    The model is not changed. The result has the elements and the latents before each
    cross-attend. Scores and weights are computed on demand, for one cross-attend at a
    time.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), figure 3 and appendix E.

    Args:
        model: `Perceiver` or a task, such as `PerceiverClassifier`.
        inputs: Batch of inputs, an array or a dict of arrays.
        chunk_size: Integer, number of inputs whose keys and scores are computed at once.
            `entropy` stores `chunk_size ** 2` scores at once.
        elements_mask: Boolean array of shape `(batch, num_inputs)`, `False` for elements
            of the byte array that are hidden from all latents, or `None`.

    Returns:
        `AttentionMaps`.

    Raises:
        TypeError: if `model` is of another class.
        ValueError: if the inputs are invalid for the model, or if `chunk_size` is not
            positive.

    Example:

    >>> model = PerceiverClassifier.from_preset("digits")
    >>> maps = attention_maps(model, np.zeros((2, 8, 8, 1), "float32"))
    >>> weights = maps.weights(cross_attend=0, latents=[0, 3])
    >>> weights["image"].shape  # batch, heads, latents, rows, columns
    (2, 8, 2, 8, 8)
    """
    check_model(model)
    decoder = getattr(model, "decoder", None)
    if isinstance(model, Task):
        model = model.encoder
    check_positive(chunk_size=chunk_size)
    model.check_inputs(inputs)
    if not isinstance(inputs, dict):
        inputs = {model.inputs[0].name: inputs}
    dtypes = {x.name: x.dtype for x in model.inputs}
    tensors = {k: ops.convert_to_tensor(inputs[k], dtypes[k]) for k in dtypes}
    read = read_elements(model, tensors, elements_mask)
    return AttentionMaps(
        modalities=model.byte_array.modalities,
        inputs={k: ops.convert_to_numpy(x) for k, x in tensors.items()},
        elements=read.elements,
        mask=None if read.mask is None else ops.convert_to_numpy(read.mask),
        reads=read.reads,
        chunk_size=chunk_size,
        decoder=decoder,
        latents=read.latents,
    )


class Read(NamedTuple):
    """What an encoder computes, with the queries of its cross-attends.

    Attributes:
        elements: Tensor of shape `(batch, num_inputs, input_dim)`.
        mask: Boolean tensor of shape `(batch, num_inputs)`, or `None`.
        reads: List of pairs of a `CrossAttend` and the latents before it.
        latents: Tensor of shape `(batch, num_latents, latent_dim)`, the result.
    """

    elements: Tensor
    mask: Tensor | None
    reads: list[tuple[CrossAttend, Tensor]]
    latents: Tensor


def read_elements(
    encoder: Perceiver, tensors: dict[str, Tensor], elements_mask: Any = None
) -> Read:
    """Runs an encoder layer by layer, on tensors or on symbolic ones.

    Args:
        encoder: `Perceiver`.
        tensors: Dict of its inputs by name.
        elements_mask: See `attention_maps`.

    Returns:
        `Read`, without gradients, for which PyTorch would keep all activations.
    """
    outputs = encoder.byte_array(tensors, training=False)
    elements, mask = outputs if encoder.byte_array.has_mask else (outputs, None)
    if elements_mask is not None:
        shown = ops.cast(elements_mask, "bool")
        mask = shown if mask is None else ops.logical_and(mask, shown)
    latents = encoder.latent_array(elements)
    reads = []
    for layer in encoder.iterative_attention.sequence():
        if isinstance(layer, CrossAttend):
            reads.append((layer, latents))
            latents = layer(latents, elements, inputs_mask=mask, training=False)
        else:
            latents = layer(latents, training=False)
        latents = ops.stop_gradient(latents)
    return Read(ops.stop_gradient(elements), mask, reads, latents)


class AttentionMaps:
    """The attention maps of a batch, whose length is the number of cross-attends.

    Attributes:
        inputs: Dict of the raw inputs and masks, NumPy arrays by name.
        grids: Dict from modality names to the number of elements along each axis, such as
            rows and columns of patches, or the number of points.
        num_latents: Integer, number of latents.
        num_inputs: Integer array, the number of elements of each example that are not
            padding, over all modalities.
    """

    def __init__(
        self,
        modalities: dict[str, Modality],
        inputs: dict[str, np.ndarray],
        elements: Tensor,
        mask: np.ndarray | None,
        reads: list[tuple[CrossAttend, Tensor]],
        chunk_size: int,
        decoder: PerceiverDecoder | None = None,
        latents: Tensor | None = None,
    ) -> None:
        self.modalities = modalities
        self.inputs = inputs
        self.grids = {
            name: tuple(
                modality.grid_of(inputs[name].shape[1 : 1 + len(modality.mask_shape)])
            )
            for name, modality in modalities.items()
        }
        self.num_latents = reads[0][1].shape[1]
        self.num_inputs = (
            np.full(elements.shape[0], elements.shape[1])
            if mask is None
            else mask.sum(axis=1)
        )
        self._elements = elements
        self._mask = mask
        self._reads = reads
        self._chunk_size = chunk_size
        self._decoder, self._latents = decoder, latents

    def __len__(self):
        return len(self._reads)

    def scores(self, cross_attend, latents=None):
        """Returns the attention scores before the softmax.

        The result needs 98 MiB per example and head for the 50,176 elements and 512
        latents of the paper's ImageNet model.

        Args:
            cross_attend: Integer, index of the cross-attend in the order of the calls.
                -1 is the last one.
            latents: Integer or sequence of integers, indices of latents. Defaults to all.

        Returns:
            Dict from modality names to float32 arrays of shape
            `(batch, heads, latents, *grid)`, minus infinity where the mask is `False`.

        Raises:
            IndexError: if there is no such cross-attend or latent.
        """
        return self._by_modality(self._scores(cross_attend, latents))

    def weights(self, cross_attend, latents=None):
        """Returns the attention weights, the softmax of `scores` over all modalities.

        For each head and latent, they sum to one over all modalities, or are all zero if
        all elements are masked.

        Args:
            cross_attend: See `scores`.
            latents: See `scores`.

        Returns:
            Dict of arrays, see `scores`.

        Raises:
            IndexError: if there is no such cross-attend or latent.
        """
        return self._by_modality(_softmax(self._scores(cross_attend, latents)))

    def output_weights(self, outputs):
        """Returns the attention weights of some outputs of a decoder over the latents.

        Args:
            outputs: Sequence of integers, the numbers of the outputs, last axis of their
                grid fastest.

        Returns:
            Float32 array of shape `(batch, heads, outputs, num_latents)`.

        Raises:
            ValueError: if the model has no decoder.
            IndexError: if there is no such output.
        """
        if self._decoder is None:
            raise ValueError(
                "The model must have a decoder. Received: a model without one. Look at "
                "`weights`, what its latents attend to."
            )
        number = self._decoder.queries.num_queries(self._elements.shape[1])
        outputs = np.ravel(outputs).tolist()
        chosen = [_index("outputs", i, number, lowest=0) for i in outputs]
        indices = np.array([chosen], "int32")
        scores = self._decoder.scores(self._latents, indices, self._elements)
        return _softmax(np.array(ops.convert_to_numpy(ops.stop_gradient(scores))))

    def entropy(self):
        """Returns the entropy of the attention weights in nats.

        It ranges from zero, for all attention on one element, to the logarithm of the
        number of elements, for uniform attention.

        Returns:
            Float32 array of shape `(cross_attends, batch, heads, latents)`.
        """
        entropy = []
        for read, (layer, query) in enumerate(self._reads):
            batch_size, num_inputs = self._elements.shape[:2]
            per_latent = batch_size * layer.num_heads * num_inputs
            num_latents, step = (
                query.shape[1],
                max(self._chunk_size**2 // per_latent, 1),
            )
            parts = []
            for start in range(0, num_latents, step):
                latents = range(start, min(start + step, num_latents))
                weights = _softmax(self._scores(read, latents))
                logarithms = np.log(np.maximum(weights, np.finfo("float32").tiny))
                parts.append(-np.einsum("bhnm,bhnm->bhn", weights, logarithms))
            entropy.append(np.concatenate(parts, axis=-1))
        return np.stack(entropy)

    def _scores(self, cross_attend, latents):
        """Returns the scores over all elements, `(B, H, N, M)`."""
        layer, query = self._reads[_index("cross_attend", cross_attend, len(self))]
        num_latents = query.shape[1]
        if latents is not None:
            latents = [latents] if isinstance(latents, int) else list(latents)
            chosen = [_index("latents", i, num_latents) for i in latents]
            query = ops.take(query, ops.convert_to_tensor(chosen, "int32"), axis=1)
        batch_size, num_inputs = self._elements.shape[:2]
        shape = (batch_size, layer.num_heads, query.shape[1], num_inputs)
        scores = np.empty(shape, "float32")
        for start in range(0, num_inputs, self._chunk_size):
            chunk = layer.scores(
                query, self._elements[:, start : start + self._chunk_size]
            )
            scores[..., start : start + self._chunk_size] = ops.convert_to_numpy(chunk)
        if self._mask is not None:
            hidden = np.broadcast_to(~self._mask[:, None, None], shape)
            scores[hidden] = -np.inf
        return scores

    def _by_modality(self, array):
        """Splits the last axis, over all elements, into the grids of the modalities."""
        parts, start = {}, 0
        for name, grid in self.grids.items():
            stop = start + math.prod(grid)
            parts[name] = array[..., start:stop].reshape(*array.shape[:-1], *grid)
            start = stop
        return parts


def _softmax(scores):
    """Returns the softmax of scores, as in `attend`. Modifies the scores in place."""
    highest = scores.max(axis=-1, keepdims=True)
    scores -= np.where(np.isfinite(highest), highest, 0)
    weights = np.exp(scores, out=scores)
    total = weights.sum(axis=-1, keepdims=True, dtype="float64")
    weights /= np.where(total > 0, total, 1)
    return weights


def _index(name, index, length, lowest=None):
    """Returns a valid index, which counts from the end if negative."""
    lowest = -length if lowest is None else lowest
    is_integer = isinstance(index, numbers.Integral) and not isinstance(index, bool)
    if not is_integer or not lowest <= index < length:
        raise IndexError(
            f"`{name}` must be integers in {lowest}..{length - 1}. Received: "
            f"{name}={index}. Choose a valid index."
        )
    return index % length
