"""The explorer in headless Chromium, through its page."""

import contextlib
import http.client
import itertools
import json
from urllib.parse import urlsplit

import keras
import numpy as np
import pytest
from explorer_page import browser, explorer

from keras_perceiver import (
    Array,
    Audio,
    AudioPreprocessor,
    Image,
    ImagePreprocessor,
    InputQueries,
    Perceiver,
    PerceiverClassifier,
    PerceiverDecoder,
    PerceiverDensePredictor,
    PointCloud,
    SelfAttend,
    Sequence,
)
from tests.explorer.files import npy, png, wav

pytestmark = [pytest.mark.one_backend, pytest.mark.slow, pytest.mark.integration]

SMALL = {
    "num_latents": 5,
    "latent_dim": 16,
    "num_blocks": 2,
    "num_self_attends_per_block": 1,
    "self_attend": SelfAttend(num_heads=2),
}
RATE = 400
_NO_ERRORS = "document.querySelectorAll('.pad-error').forEach(e => e.textContent = '')"
_DROP_LARGE = """
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(22e6)], "a.png"));
    const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
    document.querySelector(".pad-stage").dispatchEvent(new DragEvent("drop", options));
"""
PHOTO = ImagePreprocessor((8, 12, 3), max_pixels=2000)


def _saved(path, modality, preprocessor=None):
    keras.utils.set_random_seed(0)
    names = ["<b>one</b>", "two", "three"]
    model = PerceiverClassifier(Perceiver(modality, **SMALL), 3, preprocessor, names)
    model.save(path / "model.keras")
    return model


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """The URL of a running explorer of a model with five modalities."""
    path = tmp_path_factory.mktemp("several")
    modalities = {
        "photo": Image((8, 12, 3), num_bands=2),
        "sound": Audio(80, RATE, patch_size=8, num_bands=2),
        "points": PointCloud(num_bands=2, use_mask=True),
        "text": Sequence(12, 256, 4, num_bands=2),
        "table": Array((4, 2), num_bands=2),
    }
    readers = {"photo": PHOTO, "sound": AudioPreprocessor(RATE, 80)}
    _saved(path, modalities, readers)
    with explorer(path, "--max-mb", "0.1") as url:
        yield url


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The URL of a running explorer of a model of 8 x 8 pixels."""
    path = tmp_path_factory.mktemp("drawn")
    _saved(path, Image((8, 8, 1), num_bands=2))
    with explorer(path) as url:
        yield url


def _picture(seed=0, shape=(16, 24, 3)):
    return png(np.random.default_rng(seed).integers(0, 256, shape).astype("uint8"))


def test_a_drawing_is_answered(drawn):
    with browser(drawn) as page:
        assert "Draw here" in page.pad(0, "pad-hint").text
        canvas = page.pad(0, "pad-drawing")
        page.changed(lambda: page.drag(canvas, (0.1, 0.3), (0.9, 0.3)))
        bars = page.bars()
        assert sum(percent for (percent,) in bars.values()) == pytest.approx(100, abs=1)
        assert "<b>one</b>" in bars  # as it is, not as markup
        page.changed(lambda: page.drag(canvas, (0.5, 0.3), (0.5, 0.9)))
        assert page.bars() != bars
        assert page.attention().count("data:image/png;base64,") == 1
        page.changed(page.pad(0, "pad-clear").click)
        assert page.bars() == {}
        assert "Give the model an input" in page.answer()
        # Black on white is the inverse.
        page.driver.execute_script(
            "const paper = document.querySelector('.pad-paper'); paper.value = 'white';"
            "paper.dispatchEvent(new Event('change'));"
        )
        page.changed(lambda: page.drag(canvas, (0.1, 0.3), (0.9, 0.3)))
        assert page.bars() != bars
        assert page.log() == []


def test_a_brush_hides_and_the_answer_changes(drawn):
    with browser(drawn) as page:
        page.changed(lambda: page.drop(0, "a.png", _picture(shape=(8, 8))))
        whole, attention = page.bars(), page.attention()
        page.changed(
            lambda: page.drag(page.pad(0, "pad-brush"), (0.05, 0.2), (0.95, 0.2))
        )
        both = page.bars()
        assert {name: pair[:1] for name, pair in both.items()} == whole
        assert any(abs(old - new) > 0.1 for old, new in both.values())
        assert page.attention() != attention
        # More is hidden with every stroke, and all of it by the box.
        page.changed(
            lambda: page.drag(page.pad(0, "pad-brush"), (0.05, 0.7), (0.95, 0.7))
        )
        assert page.bars() != both
        box = page.pad(0, "pad-hide-all")
        unticked = box.value_of_css_property("background-color")
        page.changed(box.click)
        assert "0 % of the attention" in page.attention()
        assert "Everything is hidden" in page.answer()
        # The tick is visible, and the input is dimmed.
        assert box.value_of_css_property("background-color") != unticked
        assert "svg" in box.value_of_css_property("background-image")
        assert page.pad(0, "pad-picture").value_of_css_property("opacity") == "0.25"
        page.changed(page.pad(0, "pad-show").click)
        assert page.bars() == whole
        assert page.attention() == attention
        # A new input is not hidden.
        page.changed(box.click)
        page.changed(lambda: page.drop(0, "a.png", _picture(shape=(8, 8, 3))))
        assert not box.is_selected()
        assert "Everything is hidden" not in page.answer()
        assert page.pad(0, "pad-note").text == "The image was converted to gray."


def test_a_refused_image_leaves_the_canvas(drawn):
    with browser(drawn) as page:
        page.changed(lambda: page.drop(0, "a.png", b"x"))
        assert "must be an image" in page.error(0)
        canvas = page.pad(0, "pad-drawing")
        page.changed(lambda: page.drag(canvas, (0.1, 0.3), (0.9, 0.3)))
        assert page.error(0) == ""
        assert page.bars() != {}
        # A file that is too large is not read.
        page.driver.execute_script(_DROP_LARGE)
        assert "at most 20000000 bytes. Received: 22000000" in page.error(0)
        assert page.all("[data-busy]") == []


def test_a_server_that_has_stopped(tmp_path):
    _saved(tmp_path, Image((8, 8, 1), num_bands=2))
    with contextlib.ExitStack() as running:
        url = running.enter_context(explorer(tmp_path))
        with browser(url) as page:
            running.close()
            canvas = page.pad(0, "pad-drawing")
            page.changed(lambda: page.drag(canvas, (0.1, 0.3), (0.9, 0.3)))
            assert "The explorer has stopped. Start it again" in page.error(0)


def test_sliders_choose_cross_attend_and_latent(drawn):
    with browser(drawn) as page:
        page.changed(lambda: page.drop(0, "a.png", _picture(shape=(8, 8))))
        seen = [page.attention()]
        for name, value in (("cross-attend", 2), ("latent", 3), ("latent", 5)):
            page.sliding(name, value)
            seen.append(page.attention())
        assert len(set(seen)) == len(seen)
        page.sliding("latent", 0)
        assert page.attention() == seen[1]


def test_each_modality_alone_and_all_together(several):
    points = np.random.default_rng(0).uniform(-1, 1, (30, 3))
    files = [
        ("a.png", _picture()),
        ("a.wav", wav(np.sin(np.arange(100)), RATE)),
        ("a.npy", npy(points)),
    ]
    with browser(several) as page:
        answers = []
        for number, (name, content) in enumerate(files):
            page.changed(lambda n=number, a=name, c=content: page.drop(n, a, c))
            assert page.error(number) == ""
            assert page.pad(number, "pad-picture").is_displayed()
            answers.append(page.bars())
        for number, text in ((3, "Grüße"), (4, "1 2\n3 4\n5 6\n7, 8")):
            field = page.pad(number, "pad-text")
            field.send_keys(text)
            page.changed(page.pad(number, "pad-brush-name").click)  # leaves the field
            answers.append(page.bars())
        for earlier, later in itertools.pairwise(answers):
            assert earlier != later
        titles = [element.text for element in page.all("#attention .title")]
        assert titles == ["photo", "sound", "points", "text", "table"]
        # Every picture has a brush.
        for number in range(5):
            brush = page.pad(number, "pad-brush")
            page.changed(lambda b=brush: page.drag(b, (0.2, 0.5), (0.8, 0.5)))
            answers.append(page.bars())
            assert answers[-1] != answers[-2]
        page.changed(page.pad(1, "pad-hide-all").click)
        assert answers[-1] != page.bars()
        page.changed(page.pad(0, "pad-clear").click)
        assert page.all("#attention .title")[0].text == "sound"
        assert page.log() == []


def test_bad_inputs_have_the_errors_of_the_package(several):
    short = npy(np.zeros((4, 2)))
    cases = [
        (0, "a.png", b"x", "A file must be an image. Received: invalid content"),
        (0, "a.png", _picture(shape=(50, 50, 3)), "at most `max_pixels=2000` pixels"),
        (0, "a.gz", b"x", "A file of `photo` must end with .avif"),
        (1, "a.wav", wav(np.zeros(90), 999), "Files must have `sample_rate=400` hertz"),
        (1, "a.wav", wav(np.zeros(9), RATE), "must not be shorter than 80"),
        (1, "a.wav", wav(np.zeros(90), RATE)[:-9], "all samples that its header"),
        (2, "a.npy", short, "Points must have shape `(points, 3)`"),
        (2, "a.npy", npy(np.full((4, 3), np.nan)), "Points must be finite"),
        (2, "a.ply", b"ply", "A PLY file must have a header"),
        (4, "a.npy", npy(np.zeros((2, 4))), "Received: shape (1, 2, 4)"),
        (0, "a.png", bytes(100_001), "must have at most 100000 bytes"),
    ]
    texts = [(3, "a" * 13, "from 1 to 12 ids. Received: 13"), (4, "1 x", "'x'")]
    with browser(several) as page:
        for number, name, content, error in cases:
            page.driver.execute_script(_NO_ERRORS)
            page.drop(number, name, content)
            page.wait(lambda n=number: page.error(n))
            assert error in page.error(number)
            assert "Received: " in page.error(number)
        for number, text, error in texts:
            page.pad(number, "pad-text").send_keys(text)
            page.changed(page.pad(number, "pad-brush-name").click)
            assert error in page.error(number)
        assert page.bars() == {}
        # A good input afterwards is answered.
        page.changed(lambda: page.drop(0, "a.png", _picture()))
        assert len(page.bars()) == 3
        assert page.error(0) == ""


def test_a_dense_predictor_shows_its_output(tmp_path):
    encoder = Perceiver(Image((8, 8, 1), num_bands=2), **SMALL)
    decoder = PerceiverDecoder(InputQueries())
    PerceiverDensePredictor(encoder, 1, decoder).save(tmp_path / "model.keras")
    with explorer(tmp_path) as url, browser(url) as page:
        assert "but not from the queries" in page.driver.page_source
        canvas = page.pad(0, "pad-drawing")
        page.changed(lambda: page.drag(canvas, (0.1, 0.3), (0.9, 0.3)))
        assert len(page.all("#answer img")) == 1
        page.pad(0, "pad-hide").click()
        page.changed(
            lambda: page.drag(page.pad(0, "pad-brush"), (0.1, 0.3), (0.9, 0.3))
        )
        titles = [element.text for element in page.all("#answer .title")]
        assert titles == ["Whole input", "With hidden parts"]
        sources = [image.get_attribute("src") for image in page.all("#answer img")]
        assert sources[0] != sources[1]


def test_two_users_at_once_have_their_own_answers(drawn):
    pictures = [_picture(seed, (8, 8)) for seed in (1, 2)]
    with browser(drawn) as first, browser(drawn) as second:
        pages = [first, second]
        alone = []
        for page, content in zip(pages, pictures, strict=True):
            page.changed(lambda p=page, c=content: p.drop(0, "a.png", c))
            alone.append((page.bars(), page.attention()))
        assert alone[0] != alone[1]
        for _ in range(5):  # both at the same time, without waiting
            for page, content in zip(pages, pictures, strict=True):
                page.drop(0, "a.png", content)
            for page, expected in zip(pages, alone, strict=True):
                page.changed(lambda: None)
                assert (page.bars(), page.attention()) == expected
        first.changed(first.pad(0, "pad-hide-all").click)
        second.changed(lambda: second.drop(0, "a.png", pictures[1]))
        assert (second.bars(), second.attention()) == alone[1]


def _response(url, path, method="GET", body=None, headers=None):
    """Returns status, headers and body of a response, without a browser."""
    with contextlib.closing(
        http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    ) as connection:
        connection.request(method, path, body, headers or {})
        with connection.getresponse() as response:
            return response.status, response.headers, response.read()


def _join(url, data, function=0, **headers):
    """Returns the status of a message to the queue."""
    message = {
        "data": data,
        "fn_index": function,
        "session_hash": "abc",
        "trigger_id": 1,
    }
    headers = {"content-type": "application/json", **headers}
    path = "/gradio_api/queue/join"
    return _response(url, path, "POST", json.dumps(message).encode(), headers)[0]


def test_a_client_gets_no_file_and_no_address(drawn):
    file = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    link = {"path": "http://127.0.0.1:9/", "meta": {"_type": "gradio.FileData"}}
    for value in (file, link, [file], {"value": file}):
        assert _join(drawn, [None, 1, 0, value]) == 403
    for function in (*range(3, 8), 99):
        assert _join(drawn, [], function) == 404
    for path in (
        *(
            "/gradio_api/file=/etc/passwd",
            "/file=/etc/passwd",
            "/gradio_api/file=page.py",
        ),
        *("/assets/../../../../../../etc/passwd", "/assets/%2e%2e/%2e%2e/__init__.py"),
        *("/static/..%2f..%2f..%2froutes.py", "/gradio_api/proxy=http://example.com/"),
        *("/assets//etc/passwd", "/assets/%2fetc%2fpasswd", "/static//etc/passwd"),
        *("/gradio_api/info", "/gradio_api/openapi.json", "/monitoring"),
    ):
        code, _, content = _response(drawn, path)
        assert code in (403, 404), path
        assert b"root:" not in content
    form = b'--x\r\ncontent-disposition: form-data; name="files"; filename="a"\r\n\r\na'
    headers = {"content-type": "multipart/form-data; boundary=x"}
    upload = ("/gradio_api/upload", "POST", form + b"\r\n--x--", headers)
    assert _response(drawn, *upload)[0] == 404
    assert _join(drawn, ["a"], **{"content-length": "30000000"}) == 413
    with contextlib.suppress(ConnectionError):  # while it is sent
        assert _join(drawn, ["a" * 30_000_000]) == 413
    for headers in ({"origin": "http://example.com"}, {"host": "example.com"}):
        assert _response(drawn, "/", headers=headers)[0] == 403
    code, headers, _ = _response(drawn, "/")
    assert code == 200
    assert "default-src 'self'" in headers["content-security-policy"]


def test_messages_of_a_client_end_in_errors_on_its_page(drawn):
    with browser(drawn) as page:
        for name, error in (
            ("/etc/passwd", "must end with"),
            ("../../etc/passwd.png", "must be an image"),
            ("http://example.com/a.png", "must be an image"),
        ):
            page.driver.execute_script(_NO_ERRORS)
            page.drop(0, name, b"x")
            page.wait(lambda: page.error(0))
            assert error in page.error(0)
