"""EC2 on this machine: moto's server, behind a front that can page, throttle, deny and not answer, as AWS does."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from typing import Any
from urllib.parse import parse_qsl, urlencode
from xml.etree import ElementTree

import pytest

ERROR = """<?xml version="1.0" encoding="UTF-8"?>
<Response><Errors><Error><Code>{}</Code><Message>{}</Message></Error></Errors><RequestID>r-1</RequestID></Response>"""
STATUS = {"RequestLimitExceeded": "503 Service Unavailable", "AuthFailure": "401 Unauthorized"}


class Front:
    """A WSGI application in front of moto's application."""

    def __init__(self, behind: Callable[..., Iterable[bytes]]) -> None:
        self._behind = behind
        self.forget()

    def forget(self) -> None:
        """Reset all limits and faults."""
        #: The maximum number of objects in an answer, if the call asks for pages.
        self.page = 1000
        #: Error codes to return, by operation and region, one for each call.
        self.errors: dict[tuple[str, str], list[str]] = {}
        #: The operation that is never answered, and whether it has been called.
        self.silent, self.has_come = "", threading.Event()
        self.calls: list[tuple[str, str]] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        query = dict(parse_qsl(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])).decode()))
        operation = query["Action"]
        signed = re.search(r"Credential=[^/]+/\d+/([^/]+)/ec2/", environ["HTTP_AUTHORIZATION"])
        assert signed is not None
        call = (operation, signed[1])
        self.calls.append(call)
        if operation == self.silent:
            self.has_come.set()
            threading.Event().wait()
        if errors := self.errors.get(call):
            code = errors.pop(0)
            start_response(STATUS.get(code, "403 Forbidden"), [("Content-Type", "text/xml")])
            # Some error messages of AWS quote the request with its token.
            return [ERROR.format(code, f"in full: {environ['HTTP_AUTHORIZATION']}").encode()]
        most, first = min(int(query.pop("MaxResults", 10**6)), self.page), int(query.pop("NextToken", 0))
        asked = urlencode(query).encode()
        heads: list[Any] = []
        answer = b"".join(
            self._behind(
                environ | {"wsgi.input": BytesIO(asked), "CONTENT_LENGTH": str(len(asked))},
                lambda status, headers, *_: heads.append(status),
            )
        )
        start_response(heads[0], [("Content-Type", "text/xml")])
        return [_page(answer, first, most)]


def _page(answer: bytes, first: int, most: int) -> bytes:
    """Return a part of the answer's list, with the token of the next part."""
    root = ElementTree.fromstring(answer)
    lists = [each for each in root if each.tag.endswith(("Set", "Info")) and len(each)]
    if len(lists) != 1:
        return answer
    space = root.tag[: root.tag.index("}") + 1]
    items = list(lists[0])
    for item in (*items[:first], *items[first + most :]):
        lists[0].remove(item)
    if len(items) > first + most:
        ElementTree.SubElement(root, f"{space}nextToken").text = str(first + most)
    ElementTree.register_namespace("", space[1:-1])
    return ElementTree.tostring(root)


def set_up(patch: pytest.MonkeyPatch, url: str, **more: str) -> None:
    """Configure boto3 and ``aws`` to use the server, without the user's own configuration."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        patch.delenv(name, raising=False)
    for name, value in ({"AWS_ENDPOINT_URL_EC2": url, "AWS_EC2_METADATA_DISABLED": "true"} | more).items():
        patch.setenv(name, value)
    # The large description of EC2 is loaded only once instead of for each session.
    patch.setattr("botocore.session.create_loader", lambda path: _loader())


@cache
def _loader() -> Any:
    from botocore.loaders import create_loader

    return create_loader()


def backend(region: str) -> Any:
    """Return the state of moto's server for a region."""
    from moto.backends import get_backend

    return get_backend("ec2")["123456789012"][region]


@contextmanager
def ec2() -> Iterator[tuple[str, Front]]:
    """Run a server, and yield its URL and its front."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *arguments: object) -> None:
            """Log nothing."""

    front = Front(DomainDispatcherApplication(create_backend_app))  # type: ignore[no-untyped-call]
    server = make_server("127.0.0.1", 0, front, threaded=True, request_handler=Quiet)  # type: ignore[arg-type]
    server.daemon_threads = True  # type: ignore[attr-defined]
    server.block_on_close = False  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", front
    finally:
        server.shutdown()
        thread.join()
