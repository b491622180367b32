"""Only the requests of the page get through to Gradio."""

import asyncio
import json

import pytest

from keras_perceiver.explorer.guard import Guard
from keras_perceiver.explorer.server import is_loopback, listen

pytestmark = pytest.mark.one_backend

HOSTS = {"localhost", "127.0.0.1", "::1"}
JOIN = "/gradio_api/queue/join"
FUNCTIONS = range(3)


class _App:
    """An application that keeps the bodies that it gets."""

    def __init__(self):
        self.bodies = []

    async def __call__(self, scope, receive, send):
        message = await receive()
        self.bodies.append(message.get("body"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


def _request(path, method="GET", parts=(b"",), max_bytes=1000, hosts=HOSTS, **headers):
    """Returns the status and the headers of a response, and what the application got."""
    path, _, query = path.partition("?")
    names = {"host": "127.0.0.1:7860", **headers}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [
            (k.replace("_", "-").encode(), v.encode()) for k, v in names.items()
        ],
    }
    messages = [
        {"type": "http.request", "body": part, "more_body": i < len(parts) - 1}
        for i, part in enumerate(parts)
    ]
    sent, app = [], _App()

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    asyncio.run(Guard(app, max_bytes, FUNCTIONS, hosts)(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), app.bodies


def _data(*data, **more):
    message = {"data": data, "fn_index": 0, "session_hash": "a", **more}
    return json.dumps(message).encode()


@pytest.mark.parametrize("path", ["/", "/config", "/assets/index.js", "/theme.css"])
def test_the_page_is_served_without_anything_from_elsewhere(path):
    status, headers, _ = _request(path)
    assert status == 200
    policy = headers[b"content-security-policy"].decode()
    assert policy.startswith("default-src 'self' 'unsafe-inline' 'unsafe-eval' data:")
    assert "http" not in policy


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/file=/etc/passwd",
        "/gradio_api/proxy=http://example.com/",
        "/gradio_api/stream/a/b/c/playlist-file",
        "/gradio_api/upload_progress",
        "/gradio_api/info",
        "/gradio_api/openapi.json",
        "/gradio_api/vibe-code",
        "/gradio_api/runs",
        "/monitoring",
        "/assets/../../../etc/passwd",
        "/static/..%2f..%2fetc/passwd",
        "/?deep_link=a",
        "/docs",
    ],
)
def test_other_addresses_are_refused(path):
    status, _, bodies = _request(path)
    assert status == 404
    assert bodies == []


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/gradio_api/upload",
        "/gradio_api/run/predict",
        "/gradio_api/call/predict",
        "/gradio_api/component_server",
        "/gradio_api/process_recording",
        "/gradio_api/vibe-edit",
        "/login",
    ],
)
def test_other_posts_are_refused(path):
    status, _, bodies = _request(path, "POST", [_data("a")])
    assert status == 404
    assert bodies == []


def test_plain_values_are_passed_on():
    body = _data(1, 0.5, "text", None, True)
    status, _, bodies = _request(JOIN, "POST", [body[:9], body[9:]])
    assert status == 200
    assert bodies == [body]


@pytest.mark.parametrize(
    "value",
    [
        {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
        {"path": "http://example.com/", "meta": {"_type": "gradio.FileData"}},
        {"url": "http://example.com/"},
        [{"path": "/etc/passwd"}],
        [],
    ],
)
def test_files_of_the_server_and_urls_are_refused(value):
    for body in (
        _data("a", value),
        _data("a", event_data=value or {"path": "/etc/passwd"}),
        json.dumps({"data": value or {"path": "/etc/passwd"}}).encode(),
    ):
        status, _, bodies = _request(JOIN, "POST", [body])
        assert status == 403
        assert bodies == []


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b"[" * 100_000, b"\xff"])
def test_other_content_is_refused(body):
    status, _, bodies = _request(JOIN, "POST", [body], max_bytes=10**6)
    assert status == 403
    assert bodies == []


@pytest.mark.parametrize("index", [3, 99, -1, "0", True, 1.0, None])
def test_unknown_functions_are_refused(index):
    status, _, bodies = _request(JOIN, "POST", [_data("a", fn_index=index)])
    assert status == 404
    assert bodies == []
    assert _request(JOIN, "POST", [_data("a", fn_index=2)])[0] == 200


def test_large_requests_are_refused():
    part = _data("a" * 400)
    for parts, headers in (
        ([part, part, part], {}),
        ([part], {"content_length": "1001"}),
        ([part], {"content_length": "-1"}),
        ([part], {"content_length": "x"}),
    ):
        status, _, bodies = _request(JOIN, "POST", parts, **headers)
        assert status == 413
        assert bodies == []


def test_other_sites_are_refused():
    good, bad = "http://127.0.0.1:7860", "http://example.com"
    assert _request("/", origin=good)[0] == 200
    assert _request("/", origin=bad)[0] == 403
    assert _request(JOIN, "POST", [_data("a")], origin=bad)[0] == 403
    # A name of another site that leads to this machine.
    assert _request("/", host="example.com:7860")[0] == 403
    assert _request("/", host="[::1]:7860")[0] == 200
    assert _request("/", host="example.com:7860", hosts=None)[0] == 200


def test_addresses():
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.1.2.3", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.2", "example.com")))  # noqa: S104
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(OSError, match=f"must be free. Received: .* port {port}"):
            listen("127.0.0.1", port)
    with pytest.raises(OSError, match="must be an address of this machine"):
        listen("no.such.name.invalid", 0)
    with listen("127.0.0.1", None) as first, listen("127.0.0.1", None) as second:
        ports = [each.getsockname()[1] for each in (first, second)]
        assert 7860 <= ports[0] < ports[1] < 7880
