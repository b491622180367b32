"""The page of the explorer, made with Gradio."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from keras_perceiver._names import in_markdown
from keras_perceiver.explorer.answers import Explorer
from keras_perceiver.explorer.reports import answer_html, attention_html, data_url
from keras_perceiver.explorer.visits import Visit

if TYPE_CHECKING:
    import gradio

_FOLDER = Path(__file__).parent
# Users whose inputs and answers are kept, each for an hour.
MAX_VISITS, _SECONDS = 16, 3600
_HIDDEN = (
    "**Hide** paints over an input. The elements under the brush are masked: no latent "
    "attends to them, as if they were not in the input. *Hide all of it* masks a whole "
    "modality. A modality without an input is masked as well."
)
_HIDDEN_IN_HEAD = (
    " The output queries of this model are made of all inputs, so that hidden parts are "
    "hidden from the latents, but not from the queries."
)


def page_of(explorer: Explorer, title: str, max_bytes: int) -> gradio.Blocks:
    """Returns the page of a model.

    Args:
        explorer: `Explorer`.
        title: String, the name of the model.
        max_bytes: Integer, maximum size of a file.
    """
    import gradio

    names = list(explorer.sources)
    plain = {"js_on_load": None, "apply_default_css": False}
    with gradio.Blocks(title=title, analytics_enabled=False) as page:
        gradio.Markdown(f"# {in_markdown(title)}\n{in_markdown(_summary(explorer))}")
        visit = gradio.State(None, time_to_live=_SECONDS)
        with gradio.Row():
            with gradio.Column(min_width=300):
                pads = [_pad(explorer, name, max_bytes) for name in names]
                uses_inputs = explorer.uses_inputs_in_head
                gradio.Markdown(_HIDDEN + _HIDDEN_IN_HEAD * uses_inputs)
            with gradio.Column(min_width=300):
                gradio.Markdown("### Answer")
                answer = gradio.HTML(
                    answer_html(None), elem_id="answer", js_on_load=None
                )
                gradio.Markdown("### Attention")
                with gradio.Row():
                    cross_attend = gradio.Slider(
                        *(1, max(explorer.num_cross_attends, 2), 1, 1),
                        label="cross-attend",
                        elem_id="cross-attend",
                        visible=explorer.num_cross_attends > 1,
                    )
                    latent = gradio.Slider(
                        *(0, explorer.num_latents, 0, 1),
                        label="latent (0: mean)",
                        elem_id="latent",
                    )
                attention = gradio.HTML("", elem_id="attention", **plain)

        def attention_of(visit, cross_attend, latent):
            number = min(max(int(cross_attend), 1), explorer.num_cross_attends) - 1
            index = min(max(int(latent), 0), explorer.num_latents) - 1
            with explorer.lock:
                return attention_html(visit, number, None if index < 0 else index)

        def update(visit, cross_attend, latent, *messages):
            visit = Visit(explorer) if visit is None else visit
            visit.update(dict(zip(names, messages, strict=True)))
            with explorer.lock:
                answer = answer_html(visit)
            replies = [_reply(visit, name) for name in names]
            return visit, answer, attention_of(visit, cross_attend, latent), *replies

        options = {
            "show_progress": "hidden",
            "trigger_mode": "always_last",
            "api_visibility": "private",
            "concurrency_id": "model",
            "concurrency_limit": 1,
        }
        for pad in pads:
            pad.submit(
                update,
                [visit, cross_attend, latent, *pads],
                [visit, answer, attention, *pads],
                **options,
            )
        for slider in (cross_attend, latent):
            slider.change(
                attention_of, [visit, cross_attend, latent], attention, **options
            )
    page.queue(max_size=64, api_open=False)
    page.state_session_capacity = MAX_VISITS
    return page


def _pad(explorer, name, max_bytes):
    import gradio

    source = explorer.sources[name]
    with gradio.Group(elem_classes="pad-card"):
        gradio.Markdown(f"### {in_markdown(name)}", padding=True)
        pad = gradio.HTML(
            "",
            html_template=(_FOLDER / "pad.html").read_text(),
            js_on_load=(_FOLDER / "pad.js").read_text(),
            elem_classes=["pad-of", f"pad-{list(explorer.sources).index(name)}"],
            apply_default_css=False,
            padding=True,
            spec={
                "suffixes": list(source.suffixes),
                "canvas": source.canvas,
                "takes_text": source.takes_text,
                "max_bytes": max_bytes,
            },
            picture="",
            reply="",
        )
        gradio.Markdown(
            in_markdown(source.note), padding=True, visible=bool(source.note)
        )
    return pad


def _reply(visit, name):
    """Returns the update of an input: its picture, or the error."""
    import gradio

    picture = visit.pictures.get(name)
    reply = {
        "count": visit.counts.get(name),
        "error": visit.errors.get(name, ""),
        "note": visit.notes.get(name, ""),
    }
    return gradio.update(
        picture="" if picture is None else data_url(picture.png),
        reply=json.dumps(reply),
    )


def _summary(explorer):
    sizes = (
        f"{explorer.num_latents} latents, {explorer.num_cross_attends} cross-attends"
    )
    return (
        f"{type(explorer.model).__name__} of {', '.join(explorer.sources)}: "
        f"{explorer.model.count_params():,} parameters, {sizes}."
    )
