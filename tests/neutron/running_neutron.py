"""A Neutron API server that runs while a test does, and the clouds.yaml that leads to it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from neutron_environment import neutron_python

CLOUDS = """
clouds:
  neutron:
    auth_type: none
    network_endpoint_override: http://127.0.0.1:{port}
    network_api_version: "2"
    has_compute: false
"""


def command() -> list[str]:
    """The interpreter that has Neutron, with its own packages alone."""
    return [str(neutron_python()), "-I"]


def environment() -> dict[str, str]:
    """Without the sanitizer that may be preloaded for sgfast: it would only slow Neutron down."""
    return {name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "PYTHONPATH")}


@contextmanager
def running_neutron(folder: Path, *project: str) -> Iterator[str]:
    """Start the server in a folder, with ``project`` as its only project if it is given. Yields its port.

    ``openstack.connect(cloud="neutron")`` leads to it. The folder's neutron.log says what went wrong.
    """
    print("Neutron's log is in", folder)
    with open(folder / "output", "w") as log:
        server = subprocess.Popen(
            [*command(), Path(__file__).with_name("neutron_server.py"), folder, *project], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=log, text=True, env=environment(),
        )  # fmt: skip
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        assert port, (folder / "output").read_text()[-2000:]
        (folder / "clouds.yaml").write_text(CLOUDS.format(port=port))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OS_CLIENT_CONFIG_FILE", str(folder / "clouds.yaml"))
            yield port
    finally:
        server.kill()
        server.wait()
