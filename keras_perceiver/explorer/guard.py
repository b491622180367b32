"""Restriction of the page's server to the requests that the page makes.

Gradio serves and takes files, loads URLs that a client names, and has routes for
development. The page needs none of these: files arrive inside of messages and are read in
memory, and pictures are inside of HTML. So everything else is refused before Gradio sees
it.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from urllib.parse import urlsplit

# Paths, and prefixes of paths, of what the page loads and calls.
_GET = ("/", "/config", "/theme.css", "/gradio_api/theme.css", "/favicon.ico")
_GET_MORE = ("/gradio_api/startup-events", "/gradio_api/queue/data", "/manifest.json")
_GET_BELOW = ("/assets/", "/static/", "/gradio_api/heartbeat/")
_JOIN = "/gradio_api/queue/join"
_POST = (_JOIN, "/gradio_api/reset", "/gradio_api/cancel")

_HEADERS = {
    # Nothing from other servers, and no other page around this one. Gradio's page needs
    # inline scripts and `Function`.
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: "
    "blob:; object-src 'none'; base-uri 'self'; frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Guard:
    """ASGI application that passes on only the requests of the page.

    Args:
        app: ASGI application.
        max_bytes: Integer, maximum size of the body of a request.
        functions: Collection of integers, the indices of the functions of the page.
        hosts: Set of strings, valid names of the server in requests, or `None` for any.
            A page of another site could otherwise reach a server on loopback by a name
            of its own.
    """

    def __init__(
        self,
        app,
        max_bytes: int,
        functions: Collection[int],
        hosts: set[str] | None = None,
    ) -> None:
        self._app, self._max_bytes, self._hosts = app, max_bytes, hosts
        self._functions = frozenset(functions)

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = {
            k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]
        }
        refused = self._refused(scope, headers)
        if refused is None and scope["method"] == "POST":
            body, refused = await self._read_body(receive, headers)
            refused = refused or self._refused_message(scope["path"], body)
            if refused is None:
                receive = _replay(body, receive)
        if refused is not None:
            await _answer(send, *refused)
            return

        async def send_with_headers(message):
            if message["type"] == "http.response.start":
                own = [(k.encode(), v.encode()) for k, v in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _refused(self, scope, headers):
        """Returns status and reason if a request is refused by its head."""
        host = headers.get("host", "")
        name = urlsplit(f"//{host}").hostname
        if self._hosts is not None and name not in self._hosts:
            return 403, f"The server must be one of {', '.join(sorted(self._hosts))}."
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "Requests must come from the page itself."
        path, method = scope["path"], scope["method"]
        if scope["query_string"] and path == "/":
            return 404, "The page has no options."
        if method == "POST":
            is_known = path in _POST
        else:
            is_known = method in ("GET", "HEAD") and (
                path in (*_GET, *_GET_MORE)
                or (path.startswith(_GET_BELOW) and ".." not in path)
            )
        return None if is_known else (404, "The page has no such address.")

    async def _read_body(self, receive, headers):
        """Returns the body of a request, and status and reason if it is refused."""
        reason = (
            413,
            f"Requests must have at most {self._max_bytes} bytes. Use a smaller file, or "
            "start the explorer with a larger --max-mb.",
        )
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._max_bytes:
            return b"", reason
        parts, size, is_more = [], 0, True
        while is_more:
            message = await receive()
            if message["type"] != "http.request":
                return b"", (400, "The connection was closed.")
            part = message.get("body", b"")
            size += len(part)
            if size > self._max_bytes:
                return b"", reason
            parts.append(part)
            is_more = message.get("more_body", False)
        return b"".join(parts), None

    def _refused_message(self, path, body):
        """Returns status and reason if a message to Gradio is refused."""
        try:
            message = json.loads(body)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict) or _has_objects(message):
            return 403, "The page sends no files and no objects."
        index = message.get("fn_index")
        is_known = type(index) is int and index in self._functions
        if path == _JOIN and not is_known:
            return 404, "The page has no such function."
        return None


def _has_objects(message):
    """Returns whether a message has more than plain values as data.

    Gradio takes an object with a path or a URL for a file, and loads it.
    """
    data = message.get("data") or []
    plain = (str, int, float, bool, type(None))
    return (
        not isinstance(data, list)
        or not all(isinstance(value, plain) for value in data)
        or bool(message.get("event_data"))
    )


def _replay(body, receive):
    """Returns a `receive` that gives the body once, and then what comes later."""
    is_given = False

    async def replayed():
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


async def _answer(send, status, reason):
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    length = [(b"content-length", str(len(body)).encode())]
    await send(
        {"type": "http.response.start", "status": status, "headers": headers + length}
    )
    await send({"type": "http.response.body", "body": body})
