"""Start and stop the page of a run, on this machine unless somebody says otherwise."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from osmotic.training.errors import RunError
from osmotic.training.model import load
from osmotic.web.guard import LOOPBACK, Guard
from osmotic.web.nearest import Training
from osmotic.web.session import Session

TOKEN = 16
GRACE = 2


def refuse_open(host: str, token: str | None) -> None:
    """Refuse an address that others can reach, unless every request must show a token.

    Raises:
        ValueError: saying what to add.
    """
    if token is not None and len(token) < TOKEN:
        raise ValueError(f"--token needs at least {TOKEN} characters, and has {len(token)}; take a longer one.")
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise ValueError("--token may hold letters, digits and signs without spaces; choose another.")
    if token is None and host not in LOOPBACK:
        raise ValueError(
            f"--host {host} lets other machines in, so it needs --token with at least {TOKEN} characters; add one, or "
            "leave --host out."
        )


class Server:
    """The page of a run, bound at once and served by :meth:`serve`, or by a thread within ``with``.

    Args:
        run: the run directory.
        port: to listen on; 0 for any that is free.
        host: the address to bind.
        token: what every request must show; needed for any other address than loopback.

    Attributes:
        url: to open, with the token if there is one.

    Raises:
        ValueError: for an address or a token that is refused, or a port that is taken.
        RunError: for a run that cannot be loaded, or without gradio.
    """

    def __init__(self, run: str | Path, port: int = 7860, host: str = "127.0.0.1", token: str | None = None) -> None:
        refuse_open(host, token)
        self.socket = bound(host, port)
        try:
            self.files = tempfile.TemporaryDirectory(prefix="osmotic-serve-")
            self.port: int = self.socket.getsockname()[1]
            self.session = Session(load(run), Path(run))
            self.app = application(self.session, Training(Path(run)), host, self.port, token, self.files.name)
        except BaseException:
            self.socket.close()
            raise
        shown = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
        shown = f"[{shown}]" if ":" in shown else shown
        self.url = f"http://{shown}:{self.port}/" + ("" if token is None else f"?token={token}")
        self.server = _uvicorn(self.app)

    def serve(self) -> None:
        """Serve until Ctrl-C."""
        try:
            self.server.run(sockets=[self.socket])
        finally:
            self.close()

    def close(self) -> None:
        """Give the port and the temporary folder back."""
        self.socket.close()
        self.files.cleanup()

    def __enter__(self) -> Self:
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.thread.start()
        while not self.server.started and self.thread.is_alive():
            time.sleep(0.02)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.server.should_exit = True
        self.thread.join(2 * GRACE + 5)
        self.close()


def bound(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ValueError: if the address cannot be had.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "a port is a number from 0 to 65535"
        raise ValueError(f"{host}:{port} cannot be listened on: {reason}; choose another --port or --host.") from None


def application(session: Session, training: Training, host: str, port: int, token: str | None, folder: str) -> Guard:
    """The page as an ASGI application behind its guard.

    Args:
        session: of the model.
        training: its data.
        host: that is bound.
        port: likewise.
        token: that requests must show, if any.
        folder: an empty one, where gradio may keep files; nothing in it is served.

    Raises:
        RunError: if gradio is not installed.
    """
    quiet(folder)
    try:
        import gradio as gr
        from fastapi import FastAPI
    except ImportError as error:
        raise RunError(
            f"The page needs gradio, and it cannot be imported ({error}); run `pip install 'osmotic[serve]'`."
        ) from None
    from osmotic.web import html, page

    blocks = page.Page(session, training).build()
    blocks.queue(max_size=page.WAITING, default_concurrency_limit=1, api_open=False)
    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app = gr.mount_gradio_app(
        outer, blocks, path="/", server_name=host, server_port=port, footer_links=[], run_history=False,
        allowed_paths=[], blocked_paths=["/"], show_error=False, max_file_size=1, ssr_mode=False,
        enable_monitoring=False, pwa=False, mcp_server=False, theme=page.theme(), css=html.STYLE,
    )  # fmt: skip
    return Guard(app, host, token, room=lambda: page.WAITING - len(blocks._queue))


def quiet(folder: str) -> None:
    """Tell gradio, before it is imported, to report nothing to anybody and where to keep files."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = folder
    os.environ["HF_HUB_OFFLINE"] = "1"


def _uvicorn(app: Any) -> Any:
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="error",
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=GRACE,
            ws="none",
            h11_max_incomplete_event_size=2**14,
        )
    )
