"""Faults for the tests: a proxy before a real MLflow server that refuses, hangs or answers with an error."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

Matches = Callable[[str, str], bool]
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


class Proxy:
    """Passes requests on until a fault is set.

    ``fault`` is None, a status code, "hang", "half" (half an answer, then nothing), "drop" (half an answer, then the end),
    "html" (a page with status 200, as a portal gives it), "empty" (``{}`` with status 200) or "cut" (says 200 and stores half of what was sent).
    """

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self.upstream = (str(parts.hostname), int(parts.port or 80))
        self.fault: str | int | None = None
        self.where: Matches = lambda method, path: True
        self.seen: list[tuple[str, str]] = []
        self._release = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.open()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        """Listen, on the port of before."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def do_GET(self) -> None:
                proxy.serve(self)

            do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Say nothing: clients that gave up are what is tested."""

        self._release.clear()
        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Refuse connections from now on, and let go of those that hang."""
        self._release.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        self.seen.append((request.command, request.path))
        at_fault = self.fault is not None and self.where(request.command, request.path)
        if at_fault and self.fault == "cut":
            body = body[: len(body) // 2]
        elif at_fault:
            self._fail(request)
            return
        connection = http.client.HTTPConnection(*self.upstream, timeout=60)
        with contextlib.closing(connection):
            headers = {
                k: v for k, v in request.headers.items() if k.lower() not in ("host", "content-length")
            }
            connection.request(request.command, request.path, body=body, headers=headers)
            answer = connection.getresponse()
            data = answer.read()
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP:
                request.send_header(name, value)
        _finish(request, data)

    def _fail(self, request: BaseHTTPRequestHandler) -> None:
        if self.fault == "hang":
            self._release.wait(300)
            return
        if self.fault in ("half", "drop"):
            request.send_response(200)
            request.send_header("Content-Type", "application/json")
            request.send_header("Content-Length", "400")
            request.end_headers()
            request.wfile.write(b'{"run": {"info": {')
            request.wfile.flush()
            if self.fault == "half":
                self._release.wait(300)
            return
        if self.fault == "html":
            request.send_response(200)
            request.send_header("Content-Type", "text/html")
            _finish(request, b"<html><body>Please log in</body></html>")
            return
        if self.fault == "empty":
            request.send_response(200)
            request.send_header("Content-Type", "application/json")
            _finish(request, b"{}")
            return
        request.send_response(int(str(self.fault)))
        if self.fault == 429:
            request.send_header("Retry-After", "1")
        _finish(request, b'{"error_code": "INTERNAL_ERROR", "message": "injected"}')


def _finish(request: BaseHTTPRequestHandler, data: bytes) -> None:
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    request.wfile.write(data)


@contextlib.contextmanager
def proxied(upstream: str) -> Iterator[Proxy]:
    """Give a proxy before a server."""
    proxy = Proxy(upstream)
    try:
        yield proxy
    finally:
        proxy.fault = None
        proxy.close()


def settle(condition: Callable[[], bool], *, seconds: float = 30) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.05)
