"""The answers as HTML with pictures inside, so that no file is written or served."""

from __future__ import annotations

import base64
import html

import numpy as np

from keras_perceiver._matplotlib import matplotlib
from keras_perceiver._names import one_line
from keras_perceiver.explorer.answers import Answer
from keras_perceiver.explorer.pictures import (
    attention_picture,
    class_colors,
    output_picture,
)
from keras_perceiver.explorer.visits import Visit
from keras_perceiver.modalities.drawing import COLOR_MAP, scale_ticks

_NUM_BARS = 6
_NUM_STOPS = 12  # of the legend's gradient
_MAX_LABELED = 300  # the maximum up to which threes are labeled as well
_EMPTY = '<p class="note">Give the model an input: draw, drop a file, or type.</p>'
_UNSEEN = (
    '<p class="note unseen">Everything is hidden: this is the answer without any '
    "input.</p>"
)


def data_url(png: bytes) -> str:
    """Returns a PNG image as a URL that contains it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def answer_html(visit: Visit | None) -> str:
    """Returns the answer of the model, with the answer before something was hidden."""
    if visit is None or visit.answer is None or visit.whole_answer is None:
        return _EMPTY
    whole, answer = visit.whole_answer, visit.answer
    note = "" if answer.maps.num_inputs[0] else _UNSEEN
    return note + _answer(whole, answer, visit.is_partial)


def _answer(whole, answer, is_partial):
    if answer.probabilities is not None:
        return _bars(whole, answer if is_partial else None)
    if answer.grid_output is not None:
        answers = {"Output": answer}
        if is_partial:
            answers = {"Whole input": whole, "With hidden parts": answer}
        figures = "".join(_output(title, each) for title, each in answers.items())
        return f'<div class="figures">{figures}</div>'
    if not answer.outputs:
        return '<p class="note">An encoder has no answer, only attention.</p>'
    shapes = ", ".join(f"{name} {np.shape(x)}" for name, x in answer.outputs.items())
    return f'<p class="note">Outputs: {html.escape(shapes)}</p>'


def _bars(whole, hidden):
    """Returns bars of the most probable classes, one or two per class."""
    shown = [whole.probabilities, *([hidden.probabilities] if hidden else [])]
    order = np.argsort(-np.max(shown, axis=0), kind="stable")[:_NUM_BARS]
    labels = whole.labels or list(map(str, range(len(shown[0]))))
    kinds = ("whole", "hidden") if hidden else ("only",)
    rows = []
    for i in order:
        bars = "".join(
            f'<div class="bar {kind}" style="width:{100 * p[i]:.1f}%"></div>'
            for kind, p in zip(kinds, shown, strict=True)
        )
        percents = "".join(f"<span>{100 * p[i]:.1f} %</span>" for p in shown)
        label = html.escape(one_line(labels[i]))
        rows.append(
            f'<tr><th scope="row">{label}</th><td class="bars">{bars}</td>'
            f'<td class="percent">{percents}</td></tr>'
        )
    legend = (
        '<p class="note"><span class="key whole"></span> whole input '
        '<span class="key hidden"></span> with hidden parts</p>'
        if hidden
        else ""
    )
    return f'<table class="answer">{"".join(rows)}</table>{legend}'


def _output(title, answer):
    output = answer.grid_output
    if np.issubdtype(output.dtype, np.integer):
        found, counts = np.unique(output, return_counts=True)
        most = found[np.argsort(-counts)][:_NUM_BARS]
        labels = answer.labels or list(map(str, range(int(found.max()) + 1)))
        keys = []
        for i in most:
            color = ",".join(str(round(255 * x)) for x in class_colors(i))
            name = html.escape(one_line(labels[i]))
            keys.append(
                f'<span class="key" style="background:rgb({color})"></span> {name}'
            )
        caption = " ".join(keys)
    else:
        caption = f"values from {output.min():.3g} to {output.max():.3g}"
    return _figure(title, output_picture(output).png, caption)


def _figure(title, png, caption):
    return (
        f'<figure><div class="title">{title}</div><img src="{data_url(png)}" alt="">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def attention_html(
    visit: Visit | None, cross_attend: int, latent: int | None = None
) -> str:
    """Returns pictures of the attention to all inputs.

    Args:
        visit: `Visit`, or `None`.
        cross_attend: Integer, index of the cross-attend.
        latent: Integer, index of the latent, or `None` for the mean over all latents.
    """
    if visit is None or visit.answer is None:
        return ""
    answer: Answer = visit.answer
    maps, found = answer.maps, answer.attention(cross_attend, latent)
    maximum = max(max(x.max(initial=0) for x in found.values()), 1e-6)
    total = sum(x.sum() for x in found.values()) or 1
    figures, has_colors = [], False
    for name in visit.examples:
        weights, mask = found[name], maps.inputs.get(f"{name}_mask")
        picture = attention_picture(
            maps.modalities[name],
            maps.inputs[name][0],
            weights,
            maximum,
            None if mask is None else mask[0],
            visit.hidden.get(name, False),
        )
        has_colors |= picture.has_colors
        caption = (
            f"{100 * weights.sum() / total:.0f} % of the attention, up to "
            f"{weights.max(initial=0):.1f}x uniform attention"
        )
        figures.append(_figure(html.escape(one_line(name)), picture.png, caption))
    legend = _legend(maximum) if has_colors and maps.num_inputs[0] else ""
    if visit.is_partial:
        legend += '<p class="note"><span class="key masked"></span> hidden</p>'
    return f'{legend}<div class="figures">{"".join(figures)}</div>'


def _legend(maximum):
    """Returns the scale of the colors, with labels in multiples of uniform attention."""
    colors = getattr(matplotlib("cm"), COLOR_MAP)(np.linspace(0, 1, _NUM_STOPS))
    stops = ",".join(
        f"rgb({','.join(str(round(255 * x)) for x in color[:3])})" for color in colors
    )
    ticks = "".join(
        f'<span style="left:{100 * np.arcsinh(tick) / np.arcsinh(maximum):.1f}%">'
        f"{tick:.3g}x</span>"
        for tick in scale_ticks(maximum, (1,) if maximum > _MAX_LABELED else (1, 3))
    )
    return (
        '<div class="scale"><div class="scale-bar" style="background:'
        f'linear-gradient(to right,{stops})"></div>{ticks}</div>'
    )
