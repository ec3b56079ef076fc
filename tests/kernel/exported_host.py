"""A host with the instances of a policy behind taps, whose kernel filters by what ``sgfast export`` wrote.

    instance --tun "tap0"-->  \
    instance --tun "tap1"-->   forwarding, conntrack with a zone for each instance, nftables  --tun "network"-->
    ...                       /

All instances share one network namespace. A packet between two of them goes out to the network and comes back from
there. Time never passes, as in ``oracle``. Nothing of the oracle's own translation is used.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from ipaddress import ip_address
from itertools import permutations
from typing import ClassVar

from comparing import DIFFERENCES, Comparison, Turned, Watched
from conversations import Turn
from ctnetlink import Entry, Key, Table
from frames import checksum, ends_of
from oracle import (
    PACKET_BYTES,
    SYN_SENT2,
    SYSCTLS,
    UNKNOWN_SECONDS,
    Kernel,
    Side,
    _in_namespace,
    _new_namespace,
    _open_tun,
    _read_all,
    _run,
    lifetime,
)
from policy_changes import Changer

from sgfast.clouds.exporting.connections import commands
from sgfast.clouds.linux.nft_table import TABLE
from sgfast.clouds.linux.nftables import OPENED, Interfaces, ruleset, update, zones
from sgfast.policy.changes import Change
from sgfast.policy.model import ICMPV6, PORT_PROTOCOLS, Instance, Network, Policy
from sgfast.version import __version__

#: The rules of the file refuse what begins in the middle; the timeouts of TCP come from the file, too.
SETTINGS = SYSCTLS | {
    "net.netfilter.nf_conntrack_tcp_loose": 1,
    **{name: 77 for name in SYSCTLS if "_tcp_timeout_" in name},
}


#: Protocols of the packets of ``conversations`` besides ICMP.
PROTOCOLS = (6, 17, 47, 50, 253)


class HostTable(Table):
    """The connections of all instances. Reading it walks the whole machine's table, so a block may do that once."""

    _listed: dict[int, list[Entry]] | None = None

    def by_zone(self) -> dict[int, list[Entry]]:
        if self._listed is not None:
            return self._listed
        found: dict[int, list[Entry]] = {}
        for entry in self.entries():
            found.setdefault(entry.zone, []).append(replace(entry, mark=0))
        return found

    @contextmanager
    def read_once(self) -> Iterator[None]:
        """In the block each zone is asked about before its entries change."""
        self._listed = self.by_zone()
        try:
            yield
        finally:
            self._listed = None


class ZoneTable(Table):
    """The connections of one instance."""

    def __init__(self, zone: int, host: HostTable) -> None:
        super().__init__()
        self._zone, self._host = zone, host

    def entries(self) -> list[Entry]:
        return self._host.by_zone().get(self._zone, [])

    def update(self, entry: Entry, timeout: int, mark: int) -> None:
        super().update(entry, timeout, OPENED)


class HostSide(Side):
    """One instance's part of the host."""

    def __init__(self, instance: Instance, host: Host, tap: int, zone: int) -> None:
        self.instance = instance
        self.table = ZoneTable(zone, host.table)
        self.refreshed = 0
        #: Connections that a change disconnected: set, element, and the seconds that it has left.
        self.cut: dict[tuple[str, str], int] = {}
        self._cut = {}
        self._host = host
        self._namespace, self._inside, self._outside = host.namespace, tap, host.network

    def __exit__(self, *_: object) -> None:
        self.table.close()
        os.close(self._inside)

    def age(self, seconds: int) -> None:
        super().age(seconds)
        self.cut = {element: left - seconds for element, left in self.cut.items()}
        self._uncut([element for element, left in self.cut.items() if left <= 0])

    def uncut_lost(self) -> None:
        """An address that the instance has no more may come back. Until their time is over, the file then denies what
        was disconnected, and SPEC 6.6 does not.
        """
        self._uncut([
            (name, key) for name, key in self.cut
            if not any(self._host.owner(ip_address(end).packed) is self for end in key.split(" . ")[:2])
        ])  # fmt: skip

    def _uncut(self, elements: list[tuple[str, str]]) -> None:
        lines = [f"delete element {TABLE} {name} {{ {key} }}" for name, key in elements]
        if lines:
            self._host.run("nft", "-f", "-", text="\n".join(lines))
        for element in elements:
            del self.cut[element]


class Host(Kernel):
    """Judges as ``Kernel`` does, by the files of ``sgfast export --to nftables``."""

    def __init__(self, policy: Policy) -> None:
        self.sides: list[HostSide] = []     # type: ignore[assignment]
        self._refreshed = 0
        self.interfaces: dict[str, str | None] = {}
        self.policy: Policy | None = None
        #: The addresses behind taps, by instance.
        self._plugged: dict[str, tuple[Network, ...]] = {}
        with _new_namespace() as namespace:
            self.namespace = os.dup(namespace)
            for name, value in SETTINGS.items():
                with suppress(FileNotFoundError), open("/proc/sys/" + name.replace(".", "/"), "w") as setting:
                    setting.write(str(value))
            self.network = _open_tun("network")
            self.table = HostTable()
            for family in ("-4", "-6"):
                lines = "link set lo up\nlink set network up\nroute add default dev network table 100\n"
                _run("ip", family, "-batch", "-", text=lines)
        self.load(policy)

    def close(self) -> None:
        super().close()
        self.table.close()
        for descriptor in (self.network, self.namespace):
            os.close(descriptor)

    def age(self, seconds: int) -> None:
        with self.table.read_once():
            super().age(seconds)

    def flush(self) -> None:
        self.run("conntrack", "-F")

    def load(self, policy: Policy, deleted: object = ()) -> None:
        """The first file, or the second one and then what becomes of connections."""
        policy = _with_times_of_oracle(policy)
        before, self.policy = self.policy, policy
        self.interfaces |= {
            each.name: f"tap{len(self.interfaces) + n}"
            for n, each in enumerate(i for i in policy.instances if i.name not in self.interfaces)
        }
        on_host = {*policy.instance_by_name, *(before.instance_by_name if before else ())}
        interfaces = {name: device for name, device in self.interfaces.items() if name in on_host}
        self._plug(policy)
        if before is None:
            self.run("nft", "-f", "-", text=ruleset(policy, interfaces, __version__))
            return
        self.run("nft", "-f", "-", text=update(before, policy, interfaces, __version__))
        for side in self.sides:
            side.uncut_lost()
        self._tell_connections(before, policy, interfaces)

    def _tell_connections(self, before: Policy, policy: Policy, interfaces: Interfaces) -> None:
        """Runs the script for connections. What it cuts stays cut until ``age`` says otherwise."""
        listed = self.run("conntrack", "-L", "-o", "extended")
        script = commands(before, policy, interfaces, listed.splitlines(), "conntrack", __version__)
        cuts = re.findall(r"add element \S+ \S+ (\S+) { (.*) }", script)
        left = self._left() if cuts else {}
        self.run("sh", text=re.sub("timeout [0-9]+s", "timeout 1h", script))
        sides = {side.instance.name: side for side in self.sides}
        for name, keys in cuts:
            side = sides[name.split("/")[1]]
            for key in re.sub(" timeout [0-9]+s", "", keys).split(", "):
                side.cut[name, key] = left[side.instance.name, key]

    def _left(self) -> dict[tuple[str, str], int]:
        """The seconds that each connection has left, by instance and element."""
        left: dict[tuple[str, str], int] = {}
        with self.table.read_once():
            for side in self.sides:
                for entry in side.table.entries():
                    seconds = lifetime(entry.timeout, entry.replied, entry.tcp_state == SYN_SENT2)
                    for element in _spelled(entry.key):
                        left.setdefault((side.instance.name, element), seconds)
        return left

    def _plug(self, policy: Policy) -> None:
        """A tap for each instance, and its addresses as routes."""
        for side in list(self.sides):
            known = policy.instance_by_name.get(side.instance.name)
            if known is None:
                self._refreshed += side.refreshed
                self.sides.remove(side)
                side.__exit__()
            else:
                side.instance = known
        addresses = {instance.name: instance.addresses for instance in policy.instances}
        if addresses != self._plugged:
            self._route(policy)
            self._plugged = addresses

    def _route(self, policy: Policy) -> None:
        lines = ["route flush table main"]
        plugged = {side.instance.name for side in self.sides}
        for instance in policy.instances:
            device = self.interfaces[instance.name]
            if instance.name not in plugged:
                zone = zones(policy, self.interfaces)[instance.name]
                assert zone is not None
                with _in_namespace(self.namespace):
                    tap = _open_tun(str(device))
                    self.sides.append(HostSide(instance, self, tap, zone))
                lines += [f"link set {device} up", f"rule add iif {device} lookup 100"]
        for family in (4, 6):
            routes = [
                f"route add {network} dev {self.interfaces[instance.name]}"
                for instance in policy.instances for network in instance.addresses if network.version == family
            ]  # fmt: skip
            self.run("ip", f"-{family}", "-force", "-batch", "-", text="\n".join([*lines, *routes, ""]))
        self._owners = {}
        for side in self.sides:
            side._drain()

    def run(self, *command: str, text: str = "") -> str:
        with _in_namespace(self.namespace):
            done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
        if done.returncode != 0 and command[0] != "ip" and "0 flow entries" not in done.stderr:
            raise OSError(f"{' '.join(command)}: {done.stderr.strip()}\n{text}")
        return done.stdout


class HostComparison(Comparison):
    """A change is the second file, and then the commands for what is connected.

    What is cut is not tracked, and what was opened has a mark, so two of the differences are none.
    """

    differences: ClassVar = {
        name: each for name, each in DIFFERENCES.items()
        if name not in ("SYN on a cut connection that is over", "unanswered, and its rule is gone")
    }  # fmt: skip

    def _turn(self, turn: Turn, now: int, by_engine: int, reference: Watched, kernel: Kernel) -> Turned:
        counted = reference.apply(turn.changes, now).disconnected
        assert by_engine == counted, f"{turn.changes}: engine disconnects {by_engine}, reference {counted}"
        kernel.load(reference.policy)
        self.seen.update(("change", type(change).__name__) for change in turn.changes)
        self.seen["disconnected"] += by_engine
        return Turned(by_engine, by_engine)


class OneChange(Changer):
    """One change at a time: two policies do not tell that a rule was added and removed in between."""

    def changes(self, policy: Policy) -> list[Change]:
        return super().changes(policy)[:1]


def _spelled(key: Key) -> set[str]:
    """The elements for a connection of this key, in either direction."""
    protocol, icmp, ends = key
    if icmp is not None:
        (source, _), (destination, _) = ends
        query, _, identifier = icmp
        reply = query + 1 if query >= 13 else 0
        return {
            f"{source} . {destination} . {query} . {identifier}", f"{destination} . {source} . {reply} . {identifier}"
        }
    spelled = set()
    for (source, sport), (destination, dport) in permutations(ends, 2):
        ports = f" . {sport} . {dport}" if protocol in PORT_PROTOCOLS else ""
        spelled.add(f"{source} . {destination} . {protocol}{ports}")
    return spelled


def _with_times_of_oracle(policy: Policy) -> Policy:
    """The times by which ``oracle.lifetime`` tells what the kernel times otherwise than SPEC 5.2."""
    timeouts = replace(policy.settings.timeouts, unidirectional=UNKNOWN_SECONDS)
    return replace(policy, settings=replace(policy.settings, timeouts=timeouts))


class Machine(Side):
    """An instance's own machine: packets come in from the network and get to sockets, and go out from sockets."""

    #: A mark of packets that the test sends. Answers of the kernel itself go no further.
    MARK = 7

    def load(self, policy: Policy, isolate: bool = True) -> None:
        policy = _with_times_of_oracle(policy)
        with _in_namespace(self._namespace):
            for family in (4, 6):
                addresses = [one for one in self.instance.addresses if one.version == family]
                lines = [f"route add local {address} dev lo" for address in addresses]
                lines += [
                    f"route add {other} dev outside table local"
                    for instance in policy.instances if instance.name != self.instance.name
                    for other in instance.addresses if other.version == family
                ]  # fmt: skip
                _run("ip", f"-{family}", "-batch", "-", text="\n".join([*lines, "route add default dev outside", ""]))
            silent = "table inet test { chain output { type filter hook output priority -500; meta mark != 7 drop; }; }"
            _run("nft", "-f", "-", text=silent + "\n" + ruleset(policy, {self.instance.name: None}, __version__))
            self.receivers = {
                (family, protocol): _raw_socket(family, protocol)
                for family, protocols in ((4, (1, *PROTOCOLS)), (6, (58, *PROTOCOLS))) for protocol in protocols
            }  # fmt: skip
            self._senders = {family: _raw_socket(family, socket.IPPROTO_RAW, self.MARK) for family in (4, 6)}

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        for opened in (*self.receivers.values(), *self._senders.values()):
            opened.close()

    def leaves(self, packet: bytes) -> bool:
        family = packet[0] >> 4
        with suppress(PermissionError):     # what the filter drops
            self._senders[family].sendto(packet, (str(ip_address(ends_of(packet)[1])), 0))
        return packet[20 if family == 4 else 40 :] in [
            seen[20 if family == 4 else 40 :] for seen in _read_all(self._outside)
        ]

    def arrives(self, packet: bytes) -> bool:
        family = packet[0] >> 4
        protocol = packet[9] if family == 4 else packet[6]
        if protocol == ICMPV6:
            packet = _with_icmpv6_checksum(packet)      # sockets get no others
        os.write(self._outside, packet)
        _read_all(self._outside)
        # With IPv6, sockets get what follows the header.
        receiver = self.receivers[family, protocol]
        return packet[20 if family == 4 else 40 :] in [
            seen[20 if family == 4 else 0 :] for seen in received(receiver)
        ]


class Machines(Kernel):
    """Each instance is a machine that filters its own packets."""

    def load(self, policy: Policy, deleted: object = ()) -> None:
        for instance in policy.instances:
            self.sides.append(Machine(policy, instance))
        self._owners = {}


def _with_icmpv6_checksum(packet: bytes) -> bytes:
    body = packet[40:42] + bytes(2) + packet[44:]
    over = packet[8:40] + struct.pack(">II", len(body), ICMPV6)
    return packet[:42] + checksum(over + body) + packet[44:]


def _raw_socket(family: int, protocol: int, mark: int = 0) -> socket.socket:
    opened = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_RAW, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    opened.setblocking(False)
    return opened


def received(receiver: socket.socket) -> list[bytes]:
    found = []
    with suppress(BlockingIOError):
        while True:
            found.append(receiver.recv(PACKET_BYTES))
    return found
