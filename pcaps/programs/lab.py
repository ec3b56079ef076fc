"""A small network of network namespaces, with no way out, that goes away whatever happens.

    client 10.0.0.5 2001:db8::5 ---+
    server 10.0.0.9 2001:db8::9 ---+--- br0 (router, 10.0.0.1 2001:db8::1) --- partner 198.51.100.7 2001:db8:100::7
    nobody 10.0.0.66 2001:db8::66 -+    every packet of client and server passes br0 once

``client`` and ``server`` are the instances of the policies, ``partner`` is a machine elsewhere. ``nobody`` is an
address without a machine: the client knows its hardware address, so packets for it leave, and nobody takes them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

#: What a step of building or tearing down may take; they take milliseconds.
STEP_SECONDS = 20.0
#: What a server may take until it answers.
START_SECONDS = 15.0
#: What a process may take from being asked to end until it is made to.
STOP_SECONDS = 2.0

#: A kernel that takes these rules has what every filter needs.
_LEAST_FILTER = "table inet least { chain input { type filter hook input priority 0; ct state established accept; }; }"

#: The status of a program that was ended because its time was up; that of timeout(1).
TIMED_OUT = 124


@dataclass(frozen=True)
class Host:
    hardware: str
    addresses: Mapping[int, str]
    router: Mapping[int, str]


INSIDE = {4: "10.0.0.1", 6: "2001:db8::1"}
OUTSIDE = {4: "198.51.100.1", 6: "2001:db8:100::1"}
BITS = {4: 24, 6: 64}

HOSTS = {
    "client": Host("02:00:0a:00:00:05", {4: "10.0.0.5", 6: "2001:db8::5"}, INSIDE),
    "server": Host("02:00:0a:00:00:09", {4: "10.0.0.9", 6: "2001:db8::9"}, INSIDE),
    "partner": Host("02:00:c6:33:64:07", {4: "198.51.100.7", 6: "2001:db8:100::7"}, OUTSIDE),
}
NOBODY = Host("02:00:0a:00:00:66", {4: "10.0.0.66", 6: "2001:db8::66"}, INSIDE)
ROUTER = "router"


@dataclass(frozen=True)
class Finished:
    """A program that ran to its end. ``out`` is everything it printed."""

    status: int
    out: str


class LabError(Exception):
    """The lab could not be built, or a server did not start: nothing about what programs can reach."""


class NoLabError(LabError):
    """This machine cannot have a lab, or no filter in it."""


class Lab:
    """``with Lab(folder) as lab``: the network is there. ``folder`` is for the files of programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Several labs may run at once.
        self._prefix = f"sgfast-{os.getpid()}"
        self._namespaces: list[str] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Lab:
        try:
            self._build()
        except LabError as error:
            self._tear_down()
            raise NoLabError(str(error)) from error
        except BaseException:
            self._tear_down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tear_down()

    # --- programs ------------------------------------------------------------------------------------------------

    def must(self, *command: str, given: str = "") -> None:
        """Runs a command of ours, which has to succeed."""
        try:
            done = subprocess.run(
                command, input=given, capture_output=True, text=True, timeout=STEP_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LabError(str(error)) from error
        if done.returncode != 0:
            raise LabError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr}")

    def run(self, host: str, *command: str, seconds: float, given: str = "") -> Finished:
        """Runs a program on a host to its end, or until its time is up."""
        process = subprocess.Popen(
            self._on(host, command),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self._processes.append(process)
        try:
            out, _ = process.communicate(given.encode(), timeout=seconds)
            status = process.returncode
        except subprocess.TimeoutExpired:
            self.stop(process)
            out, status = b"", TIMED_OUT
        self._processes.remove(process)
        return Finished(status, out.decode(errors="replace"))

    def start(self, host: str, *command: str, fed: bool = False) -> subprocess.Popen[bytes]:
        """Starts a program on a host; it ends with the lab at the latest. What it prints is kept in the folder.

        ``fed``: its standard input is a pipe of ours.
        """
        stdin = subprocess.PIPE if fed else subprocess.DEVNULL
        with open(self._log(host, Path(command[0]).name), "ab") as log:
            process = subprocess.Popen(
                self._on(host, command), stdin=stdin, stdout=log, stderr=log, start_new_session=True
            )
        self._processes.append(process)
        return process

    @contextmanager
    def running(self, host: str, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        """A program that runs as long as the ``with`` block does."""
        process = self.start(host, *command)
        try:
            yield process
        finally:
            self.stop(process)
            self._processes.remove(process)

    def stop(self, process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM) -> None:
        """Asks a program to end, then makes it."""
        process.send_signal(how)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STEP_SECONDS)

    def log(self, host: str, program: str) -> str:
        """What the programs of this name that were started there have printed."""
        return self._log(host, program).read_text(errors="replace")

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + START_SECONDS
        while not condition():
            if time.monotonic() > until:
                raise LabError(f"waited in vain for {what}")
            time.sleep(0.05)

    def wait_until(self, host: str, *command: str, says: str = "") -> None:
        """Waits until a command succeeds there, and says something."""

        def does() -> bool:
            finished = self.run(host, *command, seconds=2)
            return finished.status == 0 and says in finished.out

        self.wait_for(does, f"{' '.join(command)} on {host}")

    def wait_listening(self, host: str, transport: str, port: int) -> None:
        self.wait_until(host, "ss", "-Hln", f"--{transport}", f"sport = :{port}", says=f":{port} ")

    def _log(self, host: str, program: str) -> Path:
        return self.folder / f"{host}-{program}.log"

    def _on(self, host: str, command: tuple[str, ...]) -> tuple[str, ...]:
        return ("ip", "netns", "exec", f"{self._prefix}-{host}", *command)

    # --- the kernel's filter -------------------------------------------------------------------------------------

    def load_filter(self, host: str, rules: str) -> None:
        """Puts nftables rules in front of a host. A TCP connection counts only if its opener was seen."""
        try:
            self.must(*self._on(host, ("nft", "-f", "-")), given=_LEAST_FILTER)
        except LabError as error:
            raise NoLabError(str(error)) from error
        self.must(*self._on(host, ("nft", "-f", "-")), given=f"flush ruleset\n{rules}")
        self.must(*self._on(host, ("sysctl", "-q", "-w", "net.netfilter.nf_conntrack_tcp_loose=0")))

    def forget_connections(self, host: str) -> None:
        self.must(*self._on(host, ("conntrack", "-F")))

    # --- building and tearing down -------------------------------------------------------------------------------

    def _ip(self, host: str, arguments: str) -> None:
        """One ``ip`` command there; none of our names has a space in it."""
        self.must("ip", "-n", f"{self._prefix}-{host}", *arguments.split())

    def _build(self) -> None:
        for host in (ROUTER, *HOSTS):
            namespace = f"{self._prefix}-{host}"
            # Noted first: an interrupt may come while it is being made.
            self._namespaces.append(namespace)
            self.must("ip", "netns", "add", namespace)
            self._ip(host, "link set lo up")
            # Nobody here keeps back an ICMP error because it sent one a moment ago.
            quiet = ("net.ipv6.conf.all.accept_ra=0", "net.ipv6.conf.default.accept_ra=0",
                     "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")  # fmt: skip
            self.must(*self._on(host, ("sysctl", "-q", "-w", *quiet)))
        forward = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.send_redirects=0")
        self.must(*self._on(ROUTER, ("sysctl", "-q", "-w", *forward)))

        self._ip(ROUTER, "link add br0 address 02:00:0a:00:00:01 type bridge mcast_snooping 0 stp_state 0")
        for name, plug in HOSTS.items():
            port = f"to-{name}"
            peer = f"{self._prefix}-{name}"
            self._ip(ROUTER, f"link add {port} type veth peer name eth0 address {plug.hardware} netns {peer}")
            if plug.router is INSIDE:
                self.must(*self._on(ROUTER, ("sysctl", "-q", "-w", f"net.ipv6.conf.{port}.disable_ipv6=1")))
                self._ip(ROUTER, f"link set {port} master br0")
            self._ip(ROUTER, f"link set {port} up")
            self._ip(name, "link set eth0 up")
        self._ip(ROUTER, "link set br0 up")

        for device, addresses in (("br0", INSIDE), ("to-partner", OUTSIDE)):
            for family, address in addresses.items():
                self._ip(ROUTER, f"addr add {address}/{BITS[family]} dev {device}" + " nodad" * (family == 6))
        for name, plug in HOSTS.items():
            for family, address in plug.addresses.items():
                self._ip(name, f"addr add {address}/{BITS[family]} dev eth0" + " nodad" * (family == 6))
                self._ip(name, f"route add default via {plug.router[family]}")
        for address in NOBODY.addresses.values():
            self._ip("client", f"neigh add {address} lladdr {NOBODY.hardware} dev eth0 nud permanent")

    def _tear_down(self) -> None:
        """Ends what runs in our namespaces, children of our programs too, and removes them."""
        # Each wait below has its end, so nothing needs to cut them short.
        ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
        handlers = {number: signal.signal(number, signal.SIG_IGN) for number in ends}
        try:
            for process in self._processes:
                process.terminate()
            self._wait_empty(STOP_SECONDS)
            for pid in self._pids():
                _kill(pid)
            self._wait_empty(STOP_SECONDS)
            for process in self._processes:
                process.wait(STEP_SECONDS)
            for namespace in self._namespaces:
                subprocess.run(
                    ["ip", "netns", "del", namespace], capture_output=True, timeout=STEP_SECONDS, check=False
                )
            self._namespaces.clear()
            self._processes.clear()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _wait_empty(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self._pids() and time.monotonic() < until:
            time.sleep(0.05)

    def _pids(self) -> list[int]:
        for process in self._processes:
            process.poll()
        found: list[int] = []
        for namespace in self._namespaces:
            done = subprocess.run(
                ["ip", "netns", "pids", namespace], capture_output=True, text=True, timeout=STEP_SECONDS, check=False
            )
            found += map(int, done.stdout.split())
        return found


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
