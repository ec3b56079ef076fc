"""A small OpenStack cloud on this machine: identity, paged lists of objects, and faults on request.

It replaces Open Telekom Cloud, whose VPC service is not available for tests, and can fail in ways that Neutron does
not.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

PROJECT = "0123456789abcdef0123456789abcdef"
TOKEN, PASSWORD = "hidden-token", "hidden-password"


class Cloud:
    def __init__(self) -> None:
        #: The objects of each path. Other paths are not found.
        self.lists: dict[str, list[dict[str, Any]]] = {}
        self.page = 2
        #: The paths of lists that ignore the marker and always begin with the first object.
        self.without_pages: set[str] = set()
        #: Answers (status and headers) to return before the right one, by path.
        self.answers: dict[str, list[tuple[int, dict[str, str]]]] = {}
        self.has_network, self.has_compute = True, True
        self.calls: list[str] = []
        self.url = ""

    def catalog(self) -> list[dict[str, Any]]:
        services = [("network", "", self.has_network), ("compute", f"/v2.1/{PROJECT}", self.has_compute)]
        return [
            {"type": kind, "name": kind, "id": kind, "endpoints": [
                {"interface": "public", "region": "eu-de", "region_id": "eu-de", "id": kind, "url": self.url + path}
            ]}
            for kind, path, is_there in services if is_there
        ]  # fmt: skip

    def answer(self, path: str, query: dict[str, list[str]]) -> tuple[int, Any, dict[str, str]]:
        self.calls.append(path)
        if early := self.answers.get(path):
            status, headers = early.pop(0)
            # Some error messages quote the request.
            return status, {"error": f"{TOKEN} {PASSWORD}"}, headers
        if path == "/v3":
            link = [{"rel": "self", "href": f"{self.url}/v3/"}]
            return 200, {"version": {"id": "v3.14", "status": "stable", "links": link}}, {}
        if path == "":
            link = [{"rel": "self", "href": f"{self.url}/v2.0/"}]
            return 200, {"versions": [{"id": "v2.0", "status": "CURRENT", "links": link}]}, {}
        if path not in self.lists:
            return 404, {"error": "no such thing"}, {}
        ids = [each["id"] for each in self.lists[path]]
        is_next = "marker" in query and path not in self.without_pages
        first = ids.index(query["marker"][0]) + 1 if is_next else 0
        section = path.rsplit("/", 1)[1].replace("-", "_")
        return 200, {section: self.lists[path][first : first + min(self.page, int(query["limit"][0]))]}, {}

    def log_in(self, password: str) -> tuple[int, Any, dict[str, str]]:
        if password != PASSWORD:
            return 401, {"error": {"code": 401, "title": "Unauthorized", "message": password}}, {}
        token = {
            "methods": ["password"], "user": {"id": "u", "name": "u", "domain": {"id": "d", "name": "d"}},
            "project": {"id": PROJECT, "name": "p", "domain": {"id": "d", "name": "d"}}, "catalog": self.catalog(),
            "expires_at": "2100-01-01T00:00:00.000000Z", "issued_at": "2020-01-01T00:00:00.000000Z",
            "roles": [{"id": "r", "name": "reader"}],
        }  # fmt: skip
        return 201, {"token": token}, {"X-Subject-Token": TOKEN}


@contextmanager
def openstack_cloud() -> Iterator[Cloud]:
    cloud = Cloud()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            self._send(*cloud.answer(url.path.rstrip("/"), parse_qs(url.query)))

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._send(*cloud.log_in(request["auth"]["identity"]["password"]["user"]["password"]))

        def _send(self, status: int, value: Any, headers: dict[str, str]) -> None:
            body = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            for name, text in {"Content-Length": str(len(body)), "Content-Type": "application/json", **headers}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    cloud.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield cloud
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
