"""Figures of a model's architecture: inputs, layers and prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from keras_perceiver._matplotlib import matplotlib
from keras_perceiver.layers import CrossAttend
from keras_perceiver.models import Task

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

# Widths and heights in inches. The figure is legible at a width of 900 pixels.
_WIDTH = 9.0
_HEIGHT = 3.9
_HEIGHT_WITHOUT_PICTURES = 3.2
_BOX_WIDTH = 1.12
_BOX_HEIGHT = 0.74
_GAP = 0.2
_FLOW_Y = 0.98
_BAR_Y = 2.08
_BAR_HEIGHT = 0.4
_PICTURE_Y = 2.62
_PICTURE_SIZE = 0.9

_MODALITY_COLORS = ("#fdd0a2", "#dadaeb", "#fcbba1", "#e7d4a8", "#d9d9d9")
_CROSS_ATTEND_COLORS = ("#9ecae1", "#c6dbef", "#deebf7")
_TRANSFORMER_COLORS = ("#a1d99b", "#c7e9c0", "#e5f5e0")


def plot_architecture(
    model: keras.Model, inputs: Any = None, example: int = 0
) -> Figure:
    """Draws a model: its inputs, its layers in order, shared weights, and a prediction.

    Repeated blocks are drawn once, with their number. Boxes of the same color share their
    weights.

    Args:
        model: `Perceiver` or a task, such as `PerceiverClassifier`.
        inputs: Batch of inputs, as for `predict`, to draw an example and the prediction
            of a classifier for it, or `None`.
        example: Integer, index of the example in the batch.

    Returns:
        `matplotlib.figure.Figure` with a width of 9 inches, or more if the model has
        many different layers.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if `inputs` are invalid for the model.
    """
    is_task = isinstance(model, Task)
    encoder = model.encoder if is_task else model
    trunk = encoder.iterative_attention
    stages = _stages(trunk)
    inputs = None if inputs is None else _arrays_by_name(encoder, inputs)
    answer = _answer(model, inputs, example) if is_task and inputs is not None else None

    num_boxes = sum(len(layers) for layers, _ in stages) + 1 + is_task
    num_columns = num_boxes + (answer is not None)
    width = max(_WIDTH, num_columns * (_BOX_WIDTH + _GAP) + _GAP)
    height = _HEIGHT_WITHOUT_PICTURES if inputs is None else _HEIGHT
    drawing = _Drawing(width, height)
    drawing.inputs(encoder, inputs, example)
    step = (width - _GAP) / num_columns
    centers = [_GAP / 2 + step * (i + 0.5) for i in range(num_columns)]
    latents = encoder.latent_array
    drawing.box(
        centers[0],
        f"latents\n{latents.num_latents:,} x {latents.latent_dim:,}",
        "#eeeeee",
    )
    drawing.stages(stages, centers)
    if is_task:
        outputs = " x ".join(f"{n:,}" for n in model.output.shape[1:])
        drawing.arrow_to(centers[num_boxes - 1], step)
        drawing.box(centers[num_boxes - 1], f"head\n{outputs} outputs", "#eeeeee")
    if answer is not None:
        drawing.arrow_to(centers[-1], step)
        drawing.answer(centers[-1], *answer)
    drawing.caption(
        f"{model.name}: {model.count_params():,} parameters. {_sharing(trunk, stages)}"
    )
    return drawing.figure


def _stages(trunk):
    """Returns pairs of layers in order and the number of their repetitions.

    Layers are repeated if they are identical or, if no weights are shared, if they only
    differ in their weights.
    """
    layers = trunk.sequence()
    is_shared = len({id(layer) for layer in layers}) < len(layers)
    keys = [id(x) if is_shared else type(x) for x in layers]
    stages, start = [], 0
    while start < len(layers):
        best = (1, 1)  # length, repeats
        # A single layer, or a cross-attend and the layer after it.
        for length in (1, 2) if isinstance(layers[start], CrossAttend) else (1,):
            pattern = keys[start : start + length]
            repeats = 1
            while (
                keys[start + repeats * length : start + (repeats + 1) * length]
                == pattern
            ):
                repeats += 1
            if repeats > 1 and length * repeats > best[0] * best[1]:
                best = (length, repeats)
        length, repeats = best
        stages.append((layers[start : start + length], repeats))
        start += length * repeats
    return stages


def _sharing(trunk, stages):
    layers = trunk.sequence()
    if len({id(layer) for layer in layers}) == len(layers):
        return "No two layers share weights."
    drawn = [layer for group, _ in stages for layer in group]
    if len({id(layer) for layer in drawn}) < len(drawn):
        return "Boxes of one color share their weights."
    return "Layers that repeat share their weights."


def _arrays_by_name(encoder, inputs):
    encoder.check_inputs(inputs)
    if not isinstance(inputs, dict):
        inputs = {encoder.inputs[0].name: inputs}
    return {name: np.asarray(array) for name, array in inputs.items()}


def _answer(model, inputs, example):
    """Returns the names and probabilities of the top three classes, or `None`."""
    batch = {name: array[example : example + 1] for name, array in inputs.items()}
    tensors = {
        x.name: ops.convert_to_tensor(batch[x.name], x.dtype) for x in model.inputs
    }
    if len(tensors) == 1:
        (tensors,) = tensors.values()
    outputs = model.serving_outputs(model(tensors, training=False))
    labels = model.card_entries().get("labels")
    if labels is None or "probabilities" not in outputs:
        return None
    probabilities = ops.convert_to_numpy(outputs["probabilities"])[0]
    if probabilities.ndim > 1:  # one answer for every point
        return None
    order = np.argsort(-probabilities)[:3]
    return [labels[i] for i in order], probabilities[order]


class _Drawing:
    """A figure with coordinates in inches."""

    def __init__(self, width, height):
        self._plt = matplotlib("pyplot")
        self._width, self._height = width, height
        # Places are given: no layout of the user's style moves them.
        self.figure = self._plt.figure(figsize=(width, height), layout="none")
        self._axis = self.figure.add_axes([0, 0, 1, 1])
        self._axis.set(xlim=(0, width), ylim=(0, height))
        self._axis.set_axis_off()

    def text(self, x, y, text, **options):
        options = {"ha": "center", "va": "center", "fontsize": 9, **options}
        self._axis.text(x, y, text, **options)

    def arrow(self, start, end):
        self._axis.annotate("", end, start, arrowprops={"arrowstyle": "->", "lw": 1})

    def _rectangle(self, left, bottom, width, height, color):
        patch = self._plt.Rectangle(
            (left, bottom), width, height, fc=color, ec="#444444", lw=0.8
        )
        self._axis.add_patch(patch)

    def box(self, x, text, color):
        left, bottom = x - _BOX_WIDTH / 2, _FLOW_Y - _BOX_HEIGHT / 2
        self._rectangle(left, bottom, _BOX_WIDTH, _BOX_HEIGHT, color)
        self.text(x, _FLOW_Y, text)

    def arrow_to(self, x, step):
        """Draws an arrow from the previous box to the box at x."""
        half = _BOX_WIDTH / 2
        self.arrow((x - step + half, _FLOW_Y), (x - half, _FLOW_Y))

    def inputs(self, encoder, inputs, example):
        """Draws the modalities, and the byte array."""
        modalities = encoder.byte_array.modalities
        left = 1.3
        segment = (self._width - left - _GAP / 2) / len(modalities)
        counts = []
        for i, (name, modality) in enumerate(modalities.items()):
            start = left + i * segment
            center = start + segment / 2
            counts.append(modality.num_inputs)
            self._rectangle(
                start,
                _BAR_Y - _BAR_HEIGHT / 2,
                segment,
                _BAR_HEIGHT,
                _MODALITY_COLORS[i % len(_MODALITY_COLORS)],
            )
            self.text(center, _BAR_Y, f"{_number(counts[-1])} elements")
            shape = " x ".join(_number(n) for n in modality.input_shape)
            label = f"{name}\n{type(modality).__name__}, {shape}"
            if inputs is None:
                self.text(center, _PICTURE_Y + 0.25, label)
            else:
                self._picture(center, modality, name, inputs, example)
                self.text(center, _PICTURE_Y + _PICTURE_SIZE + 0.18, label)
            self.arrow((center, _PICTURE_Y), (center, _BAR_Y + _BAR_HEIGHT / 2))
        total = None if None in counts else sum(counts)
        width = encoder.iterative_attention.cross_attends[0].key.kernel.shape[0]
        self.text(left / 2, _BAR_Y, f"inputs\n{_number(total)} x {width:,}")

    def _picture(self, center, modality, name, inputs, example):
        size = _PICTURE_SIZE if len(modality.grid) > 1 else 1.6
        if modality.drawing_projection:
            size = 1.2
        bounds = [
            (center - size / 2) / self._width,
            (_PICTURE_Y + 0.02) / self._height,
            size / self._width,
            (_PICTURE_SIZE - 0.04) / self._height,
        ]
        axis = self.figure.add_axes(bounds, projection=modality.drawing_projection)
        mask = inputs.get(f"{name}_mask")
        modality.draw(
            axis, None, inputs[name][example], None if mask is None else mask[example]
        )
        axis.set_axis_off()

    def stages(self, stages, centers):
        """Draws the layers, with a bracket under repeated ones."""
        step = centers[1] - centers[0]
        colors, column = {}, 1
        is_first = True
        for layers, repeats in stages:
            first = column
            for layer in layers:
                is_cross_attend = isinstance(layer, CrossAttend)
                palette = (
                    _CROSS_ATTEND_COLORS if is_cross_attend else _TRANSFORMER_COLORS
                )
                known = [c for c in colors.values() if c in palette]
                colors.setdefault(id(layer), palette[len(known) % len(palette)])
                self.arrow_to(centers[column], step)
                if is_cross_attend:
                    top = _FLOW_Y + _BOX_HEIGHT / 2
                    self.arrow(
                        (centers[column], _BAR_Y - _BAR_HEIGHT / 2),
                        (centers[column], top),
                    )
                    if is_first:
                        self.text(
                            centers[column] + 0.06,
                            (top + _BAR_Y - _BAR_HEIGHT / 2) / 2,
                            "keys, values",
                            ha="left",
                            fontsize=8,
                        )
                        is_first = False
                self.box(centers[column], _description(layer), colors[id(layer)])
                column += 1
            if repeats > 1:
                self._bracket(centers[first], centers[column - 1], f"{repeats} times")

    def _bracket(self, start, end, text):
        start, end = start - _BOX_WIDTH / 2, end + _BOX_WIDTH / 2
        top, bottom = _FLOW_Y - _BOX_HEIGHT / 2 - 0.05, _FLOW_Y - _BOX_HEIGHT / 2 - 0.13
        xs, ys = [start, start, end, end], [top, bottom, bottom, top]
        self._axis.plot(xs, ys, color="#444444", lw=1)
        self.text((start + end) / 2, bottom - 0.1, text)

    def answer(self, center, labels, probabilities):
        size = _BOX_WIDTH - 0.5
        bounds = [
            (center - _BOX_WIDTH / 2 + 0.45) / self._width,
            (_FLOW_Y - _BOX_HEIGHT / 2) / self._height,
            size / self._width,
            _BOX_HEIGHT / self._height,
        ]
        axis = self.figure.add_axes(bounds)
        axis.barh(range(len(labels)), probabilities, color="#756bb1")
        axis.set_yticks(range(len(labels)), labels, fontsize=9, parse_math=False)
        axis.set(xlim=(0, 1), xticks=[])
        axis.invert_yaxis()
        for side in ("top", "right", "bottom"):
            axis.spines[side].set_visible(False)
        self.text(center, _FLOW_Y + _BOX_HEIGHT / 2 + 0.12, "answer")

    def caption(self, text):
        self.text(self._width / 2, 0.14, text, color="#444444")


def _description(layer):
    if isinstance(layer, CrossAttend):
        return f"cross-attend\n{_count(layer.num_heads, 'head')}"
    number = _count(len(layer.self_attends), "self-attend")
    return f"{number}\n{_count(layer.self_attends[0].num_heads, 'head')}"


def _number(number):
    return "any" if number is None else f"{number:,}"


def _count(number, noun):
    return f"{number} {noun}{'s' * (number != 1)}"
