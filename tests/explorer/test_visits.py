"""Messages of the page change a visit; bad ones end in the package's own errors."""

import base64
import json

import numpy as np
import pytest

from keras_perceiver import (
    Array,
    Audio,
    Image,
    InputQueries,
    Perceiver,
    PerceiverClassifier,
    PerceiverDecoder,
    PerceiverDensePredictor,
    PerceiverSegmenter,
)
from keras_perceiver.explorer import Explorer
from keras_perceiver.explorer.reports import answer_html, attention_html
from keras_perceiver.explorer.visits import Visit
from tests.explorer.files import npy, png, wav
from tests.explorer.small import SMALL

pytestmark = pytest.mark.one_backend


@pytest.fixture(scope="module")
def explorer():
    modalities = {
        "image": Image((4, 6, 1), num_bands=2),
        "audio": Audio(48, 400, patch_size=4, num_bands=2),
        "table": Array((2, 3), num_bands=2),
    }
    encoder = Perceiver(modalities, **SMALL)
    return Explorer(PerceiverClassifier(encoder, 3, class_names=["<i>", "b", "c"]))


def _encoded(content):
    return base64.b64encode(content).decode()


def _message(kind=None, content="", name="", serial=1, brush=None, **more):
    given = None if kind is None else {"kind": kind, "content": content, "name": name}
    brush = brush and _encoded(brush)
    return json.dumps({"serial": serial, "input": given, "brush": brush, **more})


def _brush(rows, columns):
    pixels = np.zeros((40, 60, 4), "uint8")
    pixels[rows, columns, 3] = 255
    return png(pixels)


SOUND = wav(np.linspace(-1, 1, 48), 400)
PICTURE = np.linspace(0, 255, 24).reshape(4, 6).astype("uint8")


def test_inputs_come_one_after_the_other(explorer):
    visit = Visit(explorer)
    assert "Give the model an input" in answer_html(visit)
    assert attention_html(visit, 0) == ""
    visit.update({"image": _message("file", _encoded(png(PICTURE)), "a.png")})
    assert set(visit.examples) == set(visit.pictures) == {"image"}
    alone = explorer.answer(visit.examples).probabilities
    np.testing.assert_allclose(visit.answer.probabilities, alone, atol=1e-6)
    visit.update(
        {
            "image": _message(),  # not sent again
            "audio": _message("file", _encoded(SOUND), "a.wav"),
            "table": _message("text", "1 2 3\n4 5 6"),
        }
    )
    assert set(visit.examples) == {"image", "audio", "table"}
    together = explorer.answer(visit.examples).probabilities
    np.testing.assert_allclose(visit.answer.probabilities, together, atol=1e-6)
    assert visit.whole_answer is visit.answer
    page = answer_html(visit)
    assert "&lt;i&gt;" in page
    assert "<i>" not in page
    assert page.count('class="bar only"') == 3
    page = attention_html(visit, 1, 2)
    assert page.count("data:image/png;base64,") == 3
    assert page.count("linear-gradient") == 1
    assert '<span style="left:0.0%">0x</span>' in page
    visit.update({"image": _message("none", serial=2), "table": _message()})
    assert set(visit.examples) == {"audio", "table"}


def test_hidden_parts_change_the_answer(explorer):
    visit = Visit(explorer)
    given = _message("drawing", _encoded(png(PICTURE)))
    visit.update({"image": given})
    before = visit.answer.probabilities
    top = _brush(slice(0, 20), slice(None))
    visit.update({"image": _message(brush=top), "table": None})
    assert visit.hidden["image"].reshape(4, 6).all(axis=1).tolist() == [1, 1, 0, 0]
    assert visit.whole_answer.probabilities is before
    expected = explorer.answer(visit.examples, {"image": np.arange(24) < 12})
    np.testing.assert_allclose(
        visit.answer.probabilities, expected.probabilities, atol=1e-6
    )
    assert np.abs(visit.answer.probabilities - before).max() > 1e-4
    page = answer_html(visit)
    assert page.count('class="bar whole"') == page.count('class="bar hidden"') == 3
    assert "Everything is hidden" not in page
    visit.update({"image": _message(hidden=True)})
    assert visit.answer.maps.num_inputs.tolist() == [0]
    assert "Everything is hidden: this is the answer" in answer_html(visit)
    page = attention_html(visit, 0)
    assert "</span> hidden" in page
    assert "linear-gradient" not in page  # there is no attention
    visit.update({"image": _message()})
    assert visit.answer is visit.whole_answer
    # A new input is whole.
    visit.update({"image": _message("drawing", _encoded(png(PICTURE[::-1])), serial=2)})
    assert not visit.is_partial


@pytest.mark.parametrize(
    ("name", "message", "error"),
    [
        ("image", _message("file", _encoded(b"x"), "a.png"), "must be an image"),
        (
            "image",
            _message("file", _encoded(b"x"), "/etc/passwd"),
            "must end with .avif",
        ),
        ("image", _message("drawing", _encoded(b"x")), "A drawing must be an image"),
        ("image", _message("drawing", "€"), "must be in base64"),
        ("image", _message("text", "1 2"), "must be files that end with"),
        ("audio", _message("drawing", ""), "Only images can be drawn"),
        (
            "audio",
            _message("file", _encoded(SOUND[:-9]), "a.wav"),
            "must have all samples",
        ),
        (
            "audio",
            _message("file", _encoded(wav([0.1], 400)), "a.wav"),
            "shorter than 48",
        ),
        ("audio", _message("file", _encoded(wav([0.1], 8)), "a.wav"), "400` hertz"),
        ("table", _message("text", "1 2"), "shape (2, 3), one row per line"),
        (
            "table",
            _message("file", _encoded(npy(np.zeros(3))), "a.npy"),
            "shape (1, 3)",
        ),
        ("table", _message("file", 7, "a.npy"), "must be a string"),
        ("table", '{"serial": 1, "input": [1]}', "must be a JSON object"),
        ("table", "{", "must be a JSON object"),
        ("table", "[1]", "must be a JSON object"),
    ],
)
def test_errors_are_those_of_the_package(explorer, name, message, error):
    visit = Visit(explorer)
    visit.update({name: message})
    assert list(visit.errors) == [name]
    assert error in visit.errors[name]
    assert "Received: " in visit.errors[name]
    assert visit.answer is None
    visit.update({"image": _message("file", _encoded(png(PICTURE)), "a.png", serial=2)})
    assert visit.answer is not None
    assert "image" not in visit.errors


def test_messages_have_fixes_for_users_of_the_page(explorer):
    wide = npy(np.zeros((2, 4)))
    visit = Visit(explorer)
    visit.update({"table": _message("file", _encoded(wide), "a.npy")})
    assert visit.errors["table"].endswith("shape (1, 2, 4). Give another input.")
    color = np.zeros((4, 6, 3), "uint8")
    visit.update({"image": _message("file", _encoded(png(color)), "a.png", serial=2)})
    assert visit.notes["image"] == "The image was converted to gray."
    visit.update({"image": _message("drawing", _encoded(png(PICTURE)), serial=3)})
    assert "image" not in visit.notes


def test_a_bad_brush_is_an_error(explorer):
    visit = Visit(explorer)
    visit.update({"image": _message("drawing", _encoded(png(PICTURE)))})
    visit.update({"image": _message(brush=b"x")})
    assert "A drawing must be an image" in visit.errors["image"]
    large = png(np.zeros((1, 2000, 4), "uint8"))
    visit.update({"image": _message("drawing", _encoded(large), serial=3)})
    assert "at most 1024 x 1024 pixels" in visit.errors["image"]


def test_a_change_of_an_input_that_is_not_kept(explorer):
    visit = Visit(explorer)
    visit.update({"image": _message(serial=0), "table": _message(serial=7)})
    assert list(visit.errors) == ["table"]
    assert "Give it again" in visit.errors["table"]


def test_users_share_no_inputs(explorer):
    visits = [Visit(explorer), Visit(explorer)]
    for visit, picture in zip(visits, (PICTURE, PICTURE[::-1]), strict=True):
        visit.update({"image": _message("drawing", _encoded(png(picture)))})
    images = [visit.examples["image"] for visit in visits]
    np.testing.assert_allclose(images[0], images[1][::-1])
    assert visits[0].answer is not visits[1].answer


def test_dense_outputs_are_pictures():
    encoder = Perceiver(Image((4, 6, 1), num_bands=2), **SMALL)
    decoder = PerceiverDecoder(InputQueries())
    given = {"image": _message("drawing", _encoded(png(PICTURE)))}
    hide = {"image": _message(brush=_brush(slice(0, 20), slice(None)))}
    for model, caption in (
        (PerceiverDensePredictor(encoder, 1, decoder), "values from"),
        (PerceiverSegmenter(encoder, 2, decoder, class_names=["<i>", "<i>2"]), "&lt;i"),
    ):
        visit = Visit(Explorer(model))
        visit.update(given)
        assert answer_html(visit).count("<img") == 1
        assert caption in answer_html(visit)
        visit.update(hide)
        assert answer_html(visit).count("<img") == 2
    visit = Visit(Explorer(encoder))
    visit.update(given)
    assert "An encoder has no answer" in answer_html(visit)
    assert "<img" in attention_html(visit, 0)
