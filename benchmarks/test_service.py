"""Benchmarks of the service in docs/how-to/service.py: requests through uvicorn, which runs in a process of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from conftest import Maker, Measure
from measure import Section, Yardstick, timed
from workload import draw_flows, make_policy, policy_text

for _package in ("fastapi", "prometheus_client", "uvicorn"):
    pytest.importorskip(_package)

SERVICE = Path(__file__).parents[1] / "docs" / "how-to"
RULES, INSTANCES = 10_000, 5_000
REQUESTS = 200

#: The service with one more endpoint, on a socket that the parent listens on.
SERVER = """
import socket, sys, service, uvicorn

@service.app.get("/empty")
def empty() -> None:
    pass

config = uvicorn.Config(service.app, log_level="error")
uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
"""


@contextmanager
def serving(policy: Path) -> Iterator[Callable[[str], Any]]:
    """Run the service with a policy. Yield a function that gets a path over a connection that stays open."""
    environment = {**os.environ, "SGFAST_POLICY": str(policy)}
    environment["PYTHONPATH"] = os.pathsep.join([str(SERVICE), os.environ.get("PYTHONPATH", "")])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        command = [sys.executable, "-c", SERVER, str(listening.fileno())]
        server = subprocess.Popen(command, env=environment, pass_fds=[listening.fileno()])
    connection = HTTPConnection("127.0.0.1", port, timeout=600)

    def get(path: str) -> Any:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return json.loads(body)

    try:
        yield get
    finally:
        connection.close()
        server.terminate()
        server.wait()


def test_allowed(maker: Maker, measure: Measure, tmp_path: Path) -> None:
    """Ask about clients outside and instances, one request after the other. All of them are allowed."""
    instances = min(INSTANCES, maker.option.instances)
    policy = make_policy(RULES, 100, instances, seed=maker.option.seed)
    path = tmp_path / "policy.yaml"
    path.write_text("quotas: {rules_per_group: 100}\n" + policy_text(policy))
    items = min(REQUESTS, maker.option.packets // 100)
    flows = draw_flows(policy, items, seed=maker.option.seed)
    questions = [
        f"/allowed?source={ip_address(client.tobytes())}&destination={ip_address(server.tobytes())}&service=tcp/{port}"
        for client, server, port in zip(flows.client, flows.server, flows.server_port, strict=True)
    ]
    title = f"GET /allowed through uvicorn, policy of {RULES:,} rules, {instances:,} instances"
    with serving(path) as get:
        get("/empty"), get(questions[0])    # the server has started, and both endpoints have answered
        empty = Yardstick("GET /empty", items, timed(lambda: [get("/empty") for _ in questions]))
        measure(
            Section(title, "request", "ms"), "a packet explained", timed(lambda: [get(each) for each in questions]),
            items=items, yardsticks={"empty": empty},
        )  # fmt: skip
        assert all(get(each)["allowed"] for each in questions)
