"""The server of the page, on loopback unless told otherwise."""

from __future__ import annotations

import ipaddress
import os
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import keras

from keras_perceiver.explorer.answers import Explorer
from keras_perceiver.explorer.guard import Guard
from keras_perceiver.explorer.page import page_of
from keras_perceiver.explorer.reports import attention_html
from keras_perceiver.explorer.visits import Visit

FIRST_PORT, _NUM_PORTS = 7860, 20
# A message has files in base64, images of brushes, and what Gradio adds.
_PER_BYTE, _MORE_BYTES = 4 / 3, 2**21


def serve(
    model: keras.Model,
    title: str,
    host: str = "127.0.0.1",
    port: int | None = None,
    max_mb: float = 20,
    started: Callable[[str], object] | None = None,
) -> None:
    """Serves the page of a model until the process is interrupted.

    Args:
        model: `Perceiver` or a task.
        title: String, the name of the model on the page.
        host: String, the address to listen on.
        port: Integer, or `None` for the first free one from 7860 on. 0 is any free one.
        max_mb: Float, maximum size of a file, in MB.
        started: Callable that takes the URL as soon as the server listens.

    Raises:
        OSError: if the address cannot be listened on.
    """
    listening = listen(host, port)
    with tempfile.TemporaryDirectory(prefix="keras_perceiver_") as folder:
        os.environ |= {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_TEMP_DIR": folder,
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        import uvicorn

        explorer = Explorer(model)
        app = application(explorer, title, int(max_mb * 1e6), is_loopback(host))
        number = listening.getsockname()[1]
        name = f"[{host}]" if ":" in host else host

        class Server(uvicorn.Server):
            async def startup(self, sockets=None):
                await super().startup(sockets)
                threading.Thread(target=_warm_up, args=(explorer,), daemon=True).start()
                if started is not None:
                    started(f"http://{name}:{number}/")

        config = uvicorn.Config(
            app,
            log_level="error",
            timeout_graceful_shutdown=1,
            server_header=False,
            ws="none",
        )
        Server(config).run(sockets=[listening])


def _warm_up(explorer):
    """Compiles the model and loads fonts before the first user needs them."""
    visit = Visit(explorer)
    visit.examples = explorer.random_examples()
    with explorer.lock:
        visit.answer = explorer.answer(visit.examples)
        attention_html(visit, 0)


def application(
    explorer: Explorer, title: str, max_bytes: int, is_loopback: bool
) -> Callable:
    """Returns the ASGI application of the page.

    Args:
        explorer: `Explorer`.
        title: String, the name of the model on the page.
        max_bytes: Integer, maximum size of a file.
        is_loopback: Boolean, whether only names of this machine are valid.
    """
    import fastapi
    import gradio

    page = page_of(explorer, title, max_bytes)
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}
    app = gradio.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None),
        page,
        path="/",
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        max_file_size=1,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        show_error=True,
        theme=gradio.themes.Default(**fonts),
        css_paths=[Path(__file__).with_name("page.css")],
    )
    hosts = {"localhost", "127.0.0.1", "::1"} if is_loopback else None
    # All inputs of an example may be new at once.
    limit = int(len(explorer.sources) * max_bytes * _PER_BYTE) + _MORE_BYTES
    return Guard(app, limit, page.fns, hosts)


def is_loopback(host: str) -> bool:
    """Returns whether an address is that of this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int | None) -> socket.socket:
    """Returns a socket that is bound to an address.

    Args:
        host: String.
        port: Integer, or `None`, see `serve`.

    Raises:
        OSError: if the address cannot be listened on.
    """
    last = FIRST_PORT + _NUM_PORTS
    ports = range(FIRST_PORT, last) if port is None else [port]
    for number in ports:
        try:
            family = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0][0]
            listening = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise OSError(
                f"--host must be an address of this machine. Received: {host!r} ({error}). "
                "Correct it."
            ) from error
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, number))
            listening.listen()
            return listening
        except OSError as error:
            listening.close()
            reason = error.strerror
    raise OSError(
        f"The address must be free. Received: {host} with port {ports[0]}"
        f"{f' to {ports[-1]}' if len(ports) > 1 else ''} ({reason}). Choose another "
        "--port."
    )
