"""Neutron's compute nodes for the tests: programs them from documents of its API, and sends frames through them.

``ovs_agent`` is the process that does it, run by the Python that has Neutron.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neutron_environment import neutron_python

AGENT = Path(__file__).with_name("ovs_agent.py")
#: The devices of node 0 and of node 1, with the hardware addresses of their ports.
DEVICES = {f"{node}{n}": f"fa:16:3e:{number:02x}:00:{n:02x}" for number, node in enumerate("ab") for n in range(4)}
#: The device outside of both, and the router's address there.
OUTSIDE, ROUTER = "outside", "fa:16:3e:ff:00:01"


def missing() -> str | None:
    """Why this machine cannot run Neutron's firewall, or None."""
    if os.geteuid() != 0:
        return "needs root"
    for tool in ("ip", "ovs-vswitchd", "ovsdb-server", "ovs-vsctl", "ovs-ofctl"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed (Debian's openvswitch-switch)"
    if not os.path.exists("/dev/net/tun"):
        return "there is no /dev/net/tun"
    if neutron_python() is None:
        return "there is no Neutron (python tests/neutron/neutron_environment.py)"
    return None


class Cloud:
    """Two compute nodes. A context manager: nothing of them remains."""

    def __enter__(self) -> Cloud:
        self._folder = tempfile.TemporaryDirectory(prefix="ovs")
        self._log = open(f"{self._folder.name}/agent.log", "w+")
        addresses = [f"{device}={mac}" for device, mac in {**DEVICES, OUTSIDE: ROUTER}.items()]
        # Without the paths of the tests, one of whose modules is called neutron, and the same for each run of a seed.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self._process = subprocess.Popen(
            [str(neutron_python()), str(AGENT), self._folder.name, *addresses],
            env=environment | {"PYTHONHASHSEED": "0"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
        )  # fmt: skip
        try:
            self._answer()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()
        self._folder.cleanup()

    def begin(self, documents: Mapping[str, Any], devices: Mapping[str, str]) -> None:
        """Make the nodes do what the documents say, as if they had known no others, and no connection.

        ``devices``: the device of each port that is there.
        """
        self._do("begin", documents=documents, bound=devices)

    def program(self, documents: Mapping[str, Any], devices: Mapping[str, str]) -> None:
        """Tell the nodes how the documents have changed."""
        self._do("program", documents=documents, bound=devices)

    def exchange(self, frames: Sequence[tuple[str, bytes]]) -> dict[str, list[bytes]]:
        """Send Ethernet frames, each into a device, and return what came out of each device.

        Frames of one device keep their order, those of several have none.
        """
        came = self._do("exchange", frames=[(device, frame.hex()) for device, frame in frames])
        return {device: [bytes.fromhex(frame) for frame in frames] for device, frames in came.items()}

    def ask(self, *words: str) -> str:
        """The output of ``ovs-appctl WORDS``."""
        return str(self._do("ask", words=words))

    def _do(self, what: str, **more: Any) -> Any:
        assert self._process.stdin is not None
        print(json.dumps({"do": what, **more}), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise OSError(f"the nodes ended: {self._log.read()[-4000:]}")
        return json.loads(line)["answer"]
