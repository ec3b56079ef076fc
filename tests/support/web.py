"""A web server for tests, which runs in a thread of their process."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain


class Web(ThreadingHTTPServer):
    """Serve each of ``files`` in chunks and completely, even if a range is requested, and count the bytes sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        #: The pieces of each file, by name.
        self.files: dict[str, Iterable[bytes]] = {}
        self.headers = {"Transfer-Encoding": "chunked"}
        #: Whether the server states the length of a file in its answer to HEAD.
        self.tells_length = False
        self.asked: list[str] = []
        self.sent = 0

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Web

    def do_HEAD(self) -> None:
        self.server.asked.append("HEAD")
        pieces = self.server.files.get(self.path[1:])
        self.send_response(404 if pieces is None else 200)
        if pieces is not None and self.server.tells_length:
            self.send_header("Content-Length", str(sum(map(len, pieces))))
        self.send_header("Connection", "close")
        self.end_headers()

    def do_GET(self) -> None:
        self.server.asked.append("GET")
        pieces = self.server.files.get(self.path[1:])
        self.close_connection = True
        self.send_response(404 if pieces is None else 206 if "Range" in self.headers else 200)
        if pieces is None:
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            for piece in chain(pieces, [b""]):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.server.sent += len(piece)
        except OSError:
            pass        # the client has closed the connection

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Web]:
    with Web() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
