"""The server: on loopback, for those who know the address with its token."""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

from ..errors import UserError, find_user_error
from .site import Answer, Site, text

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@contextmanager
def serving(site: Site, port: int = 0) -> Iterator[str]:
    """Serve a site on loopback while the block runs, under the limits that hold now.

    Args:
        site: see `build_site`.
        port: 0: one that is free.

    Yields:
        The address with its token, which is drawn anew each time.

    Raises:
        UserError: if the port cannot be had.
    """
    try:
        server = _Server(site, port)
    except OSError as error:
        raise UserError(f"port {port} of {HOST}: {error.strerror}; expected: a free one, or --port 0") from error
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}/{server.token}/"
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    """Holds what the requests need."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, site: Site, port: int) -> None:
        super().__init__((HOST, port), _Handler)
        self.site = site
        self.context = copy_context()  # a request is answered in a thread of its own, where the defaults would hold
        self.token = secrets.token_urlsafe(24)
        self.names = {f"{name}:{self.server_port}" for name in (HOST, "localhost")}


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD; nothing is ever changed."""

    server: _Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "lung-infection", ""
    timeout = 60

    def do_GET(self) -> None:
        """Answer with the headers and the bytes."""
        answer = self._answer()
        with suppress(ConnectionError):  # a page was left while it loaded
            self._start(answer)
            for part in answer.parts:
                self.wfile.write(part)

    def do_HEAD(self) -> None:
        """Answer with the headers alone."""
        with suppress(ConnectionError):
            self._start(self._answer())

    def _answer(self) -> Answer:
        try:
            _, token, *path = (*urlsplit(self.path).path.split("/", 2), "")[:3]
        except ValueError:  # an address in brackets that is none
            return text("no address; expected: the one that the command printed", status=HTTPStatus.BAD_REQUEST)
        known = hmac.compare_digest(token.encode(), self.server.token.encode())
        if not known or self.headers.get("Host") not in self.server.names:  # a page elsewhere has another Host
            return text("expected: the address that the command printed", status=HTTPStatus.FORBIDDEN)
        make = self.server.site.get(path[0])
        if make is None:
            return text("no such page", status=HTTPStatus.NOT_FOUND)
        try:
            return self.server.context.copy().run(make)
        except Exception as error:
            mistake = find_user_error(error)
            if mistake is None:
                logger.error(f"{path[0]}: failed", exc_info=error)
                return text(f"{type(error).__name__}: {error}", status=HTTPStatus.INTERNAL_SERVER_ERROR)
            return text(str(mistake), status=HTTPStatus.CONFLICT)

    def _start(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Security-Policy", answer.policy)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(answer.length))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the addresses hold the token."""
