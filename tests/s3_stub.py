"""As much of S3 as MLflow's artifact store uses, on loopback, with faults."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

XMLNS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
ERRORS = {403: "AccessDenied", 500: "InternalError", 503: "SlowDown"}


class Bucket:
    """Objects by key; with ``fault`` set, every request is answered with that status."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.fault: int | None = None
        self.url = ""

    def listing(self, query: dict[str, list[str]]) -> bytes:
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        folders: set[str] = set()
        text = ""
        for key, data in sorted(self.objects.items()):
            if not key.startswith(prefix):
                continue
            head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            if found:
                folders.add(prefix + head + delimiter)
            else:
                text += f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size></Contents>"
        text += "".join(
            f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>" for f in sorted(folders)
        )
        head = f"<Prefix>{escape(prefix)}</Prefix><IsTruncated>false</IsTruncated>"
        return f"<ListBucketResult {XMLNS}>{head}{text}</ListBucketResult>".encode()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if self.fault is not None:
            return self.fault, f"<Error><Code>{ERRORS[self.fault]}</Code></Error>".encode()
        parts = urlsplit(path)
        key = unquote(parts.path).lstrip("/").partition("/")[2]
        query = parse_qs(parts.query, keep_blank_values=True)
        if method == "GET" and "list-type" in query:
            return 200, self.listing(query)
        if method == "POST" and "delete" in query:
            for element in ElementTree.fromstring(body).iter():
                if element.tag.endswith("Key"):
                    self.objects.pop(str(element.text), None)
            return 200, f"<DeleteResult {XMLNS}></DeleteResult>".encode()
        if method == "PUT":
            self.objects[key] = body
            return 200, b""
        if key not in self.objects:
            return 404, b"<Error><Code>NoSuchKey</Code></Error>"
        return 200, self.objects[key]


@contextlib.contextmanager
def bucket() -> Iterator[Bucket]:
    """Serve one bucket of any name."""
    place = Bucket()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, data = place.answer(self.command, self.path, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{md5(data, usedforsecurity=False).hexdigest()}"')
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_PUT = do_POST = do_HEAD = do_DELETE = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    place.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield place
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
