"""What a model computes for an example: its answer, and what its latents attend to."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Mapping

import keras
import numpy as np

from keras_perceiver.explorer.sources import Source
from keras_perceiver.modalities.preprocessors.base import preprocessors_by_name
from keras_perceiver.models import Task
from keras_perceiver.models.head import head_of
from keras_perceiver.models.tasks.base import check_model
from keras_perceiver.visualization import AttentionMaps
from keras_perceiver.visualization.maps import read_elements

_SHOWN = "shown_elements"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model computes for an example.

    Attributes:
        outputs: Dict of NumPy arrays, the outputs of the served model for the example.
            It is empty for an encoder.
        labels: List of strings, the class names, or `None`.
        maps: `AttentionMaps`, with the hidden elements masked.
    """

    outputs: dict
    labels: list[str] | None
    maps: AttentionMaps

    @property
    def probabilities(self) -> np.ndarray | None:
        """NumPy array of the probabilities of the classes of the example, or `None`."""
        found = self.outputs.get("probabilities")
        return found if found is not None and found.ndim == 1 else None

    @property
    def grid_output(self) -> np.ndarray | None:
        """NumPy array of the outputs on a grid, or `None`.

        It is `(*grid, channels)` for values and an integer array `(*grid,)` for classes.
        """
        if self.probabilities is not None:
            return None
        return self.outputs.get("classes", self.outputs.get("outputs"))

    def attention(
        self, cross_attend: int, latent: int | None = None
    ) -> dict[str, np.ndarray]:
        """Returns attention weights, the mean over the heads.

        Args:
            cross_attend: Integer, index of the cross-attend.
            latent: Integer, index of the latent, or `None` for the mean over all latents.

        Returns:
            Dict from names of modalities to arrays of the shape of their grids, in
            multiples of uniform attention to the elements that are not hidden.
        """
        latents = None if latent is None else [latent]
        weights = self.maps.weights(cross_attend, latents)
        scale = max(int(self.maps.num_inputs[0]), 1)
        return {
            name: array[0].mean(axis=(0, 1)) * scale for name, array in weights.items()
        }


class Explorer:
    """Runs a model on single examples, with parts of the inputs hidden.

    A hidden element is masked in all cross-attends, as if the byte array did not contain
    it. This needs no training with masks and no `use_mask`, since a Perceiver attends to
    a set of elements. A modality that is missing or hidden has no elements.

    Args:
        model: `Perceiver` or a task.

    Attributes:
        sources: Dict from modality names to `Source`.
        num_cross_attends: Integer.
        num_latents: Integer.

    Raises:
        TypeError: if `model` is of another class.

    Example:

    >>> model = PerceiverClassifier.from_preset("digits")
    >>> explorer = Explorer(model)
    >>> image = np.zeros((8, 8, 1), "float32")
    >>> answer = explorer.answer({"image": image}, {"image": np.arange(64) < 32})
    >>> answer.probabilities.shape, int(answer.maps.num_inputs[0])
    ((10,), 32)
    """

    def __init__(self, model: keras.Model) -> None:
        check_model(model)
        self.model = model
        self.encoder = model.encoder if isinstance(model, Task) else model
        readers = preprocessors_by_name(
            getattr(model, "preprocessor", None), model.modalities
        )
        self.sources = {
            name: Source(name, modality, readers.get(name))
            for name, modality in model.modalities.items()
        }
        self._head = head_of(model) if isinstance(model, Task) else None
        self._layers: list = []
        self._whole = self._whole_model()
        self.num_cross_attends = len(self._layers)
        self.num_latents = self.encoder.output_shape[1]
        # Keras' functions and Matplotlib's caches are not made for several threads.
        self.lock = threading.RLock()

    def _whole_model(self):
        """Returns the model with a mask of its elements and all that maps need."""
        inputs = {
            x.name: keras.Input(x.shape[1:], dtype=x.dtype, name=x.name)
            for x in self.model.inputs
        }
        shown = keras.Input((None,), dtype="bool", name=_SHOWN)
        names = [x.name for x in self.encoder.inputs]
        read = read_elements(
            self.encoder, {name: inputs[name] for name in names}, shown
        )
        self._layers = [layer for layer, _ in read.reads]
        outputs = {
            "elements": read.elements,
            "mask": read.mask,
            "latents": read.latents,
            "queries": [query for _, query in read.reads],
        }
        if self._head is not None:
            available = {
                **inputs,
                "latents": read.latents,
                "inputs": read.elements,
                "inputs_mask": read.mask,
            }
            outputs["outputs"] = self._head(
                {x.name: available[x.name] for x in self._head.inputs}
            )
        return keras.Model({**inputs, _SHOWN: shown}, outputs)

    @property
    def uses_inputs_in_head(self) -> bool:
        """Boolean, whether output queries are made of the inputs, hidden ones as well."""
        head = self._head
        return head is not None and any(x.name == "inputs" for x in head.inputs)

    def answer(
        self,
        examples: Mapping[str, np.ndarray],
        hidden: Mapping[str, np.ndarray | bool] | None = None,
    ) -> Answer:
        """Runs the model on an example.

        Args:
            examples: Mapping from names of modalities to raw inputs, as a `Source`
                returns them. Modalities may be missing.
            hidden: Mapping from names of modalities to boolean arrays of the elements
                that are hidden, or `True` for all of them.

        Returns:
            `Answer`.

        Raises:
            ValueError: if no modality is given, or if `hidden` has an invalid shape.
        """
        if not examples:
            raise ValueError(
                f"An example must have one of the inputs {', '.join(self.sources)}. "
                "Received: none. Draw something, or choose a file."
            )
        batch, shown, raw = {}, [], {}
        for name, source in self.sources.items():
            array = examples.get(name)
            batch[name], mask = source.batch(array)
            raw[name] = batch[name]
            if source.modality.use_mask:
                batch[f"{name}_mask"] = raw[f"{name}_mask"] = mask
            num_elements = math.prod(source.modality.grid_of(mask.shape[1:]))
            shown.append(self._shown(name, array, num_elements, hidden or {}))
        for name, number in self.model.index_inputs.items():
            batch[name] = np.arange(number, dtype="int32")[None]
        batch[_SHOWN] = np.concatenate(shown)[None]
        with self.lock:
            return self._answer(batch, raw)

    def random_examples(self) -> dict[str, np.ndarray]:
        """Returns a random example, such as to compile the model before it is needed."""
        rng = np.random.default_rng(0)
        return {
            name: source.modality.random_inputs(rng, 1)[0]
            for name, source in self.sources.items()
        }

    def _shown(self, name, array, num_elements, hidden):
        """Returns the mask of the elements of a modality that are not hidden."""
        found = hidden.get(name, False)
        if array is None or found is True:
            return np.zeros(num_elements, "bool")
        if found is False:
            return np.ones(num_elements, "bool")
        found = np.asarray(found, "bool")
        if found.ndim != 1 or len(found) > num_elements:
            raise ValueError(
                f"`hidden` must have one boolean per element of {name!r}. Received: shape "
                f"{found.shape} for {num_elements} elements. Correct it."
            )
        # Elements of padding, which are masked anyway.
        return ~np.pad(found, (0, num_elements - len(found)))

    def _answer(self, batch, raw):
        found = self._whole.predict_on_batch(batch)
        maps = AttentionMaps(
            modalities=self.model.modalities,
            inputs=raw,
            elements=keras.ops.convert_to_tensor(found["elements"]),
            mask=found["mask"],
            reads=[
                (layer, keras.ops.convert_to_tensor(query))
                for layer, query in zip(self._layers, found["queries"], strict=True)
            ],
            chunk_size=4096,
            decoder=getattr(self.model, "decoder", None),
            latents=keras.ops.convert_to_tensor(found["latents"]),
        )
        if self._head is None:
            return Answer({}, None, maps)
        outputs = self.model.serving_outputs(
            keras.ops.convert_to_tensor(self._on_grid(found["outputs"]))
        )
        outputs = {
            name: np.asarray(
                keras.ops.convert_to_numpy(x) if keras.ops.is_tensor(x) else x
            )[0]
            for name, x in outputs.items()
        }
        return Answer(outputs, self.model.card_entries().get("labels"), maps)

    def _on_grid(self, outputs):
        """Returns outputs of indices on the grid of the targets."""
        if not self.model.index_inputs:
            return outputs
        shape = self.model.target_spec.shape
        for num_axes in range(1, len(shape) + 1):
            if math.prod(shape[:num_axes]) == outputs.shape[1]:
                return outputs.reshape(1, *shape[:num_axes], *outputs.shape[2:])
        return outputs
