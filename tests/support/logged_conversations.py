"""Random conversations whose flow logs tell as much as logs can, and the connections of replays to compare.

No conversation pauses so long that the answer depends on when packets came within a record (SPEC 10.30).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from captures import pcap_head, pcap_record
from frames import Layer, ethernet, icmp, icmpv6, ip, other, sctp, tcp, udp
from logged_packets import Packet, RawPacket

from sgfast import replay
from sgfast.policy.model import Policy
from sgfast.rows.row_schema import ANSWERS
from sgfast.rows.verdicts import VERDICTS

SECOND = 10**9
START = 1_700_000_000 * SECOND
#: Addresses of instances, the primary one of each family first; then those of others.
INSTANCES = {
    "i0": ("10.0.0.5", "2001:db8::5"), "i1": ("10.0.0.6", "10.0.0.60", "2001:db8::6"), "i2": ("10.0.1.7",),
}  # fmt: skip
OTHERS = ("198.51.100.7", "203.0.113.9", "2001:db8:1::7", "2001:db8:2::9")
SERVICES = (22, 53, 80, 443)
#: One line of a conversation: seconds since its beginning, 0 for the opener or 1 for the other end, and what it sends.
Line = tuple[float, int, Layer]
#: Whether an interface blocks a packet in a direction, as ``Logged.blocked``.
Blocks = Callable[[Packet, str, str], bool]


def a_policy(rng: np.random.Generator) -> dict[str, Any]:
    """Return a policy of INSTANCES, each in a group with some random rules."""
    def rule() -> dict[str, Any]:
        made: dict[str, Any] = {"direction": str(rng.choice(["inbound", "outbound", "outbound"]))}
        made["protocol"] = rng.choice(["tcp", "tcp", "udp", "icmp", "icmpv6", "sctp", "47", "50", "all"]).item()
        if made["protocol"].isdigit():
            made["protocol"] = int(made["protocol"])
        if made["protocol"] in ("tcp", "udp", "sctp") and rng.random() < 0.6:
            made["ports"] = int(rng.choice(SERVICES))
        side = "source" if made["direction"] == "inbound" else "destination"
        peer = rng.choice(["", "", "g0", "g1", "10.0.0.0/24", "198.51.100.0/24", "::/0"]).item()
        if peer and not (":" in peer and made["protocol"] == "icmp"):
            made[side] = peer
        if made["protocol"] == "icmpv6" and "." in made.get(side, ""):
            del made[side]
        return made

    groups = [{"name": f"g{n}", "rules": [rule() for _ in range(rng.integers(0, 6))]} for n in range(3)]
    instances = [
        {"name": name, "addresses": list(addresses), "security_groups": [f"g{n}"]}
        for n, (name, addresses) in enumerate(INSTANCES.items())
    ]
    return {"version": 1, "security_groups": groups, "instances": instances}


class Teller:
    """Tells random conversations. ``secondary``: whether instances use their secondary addresses, too. ``older``:
    whether some of TCP are older than the capture.
    """

    def __init__(self, rng: np.random.Generator, *, secondary: bool = False, older: bool = True) -> None:
        self._rng = rng
        self._older = older
        self._owners = {
            address: name for name, addresses in INSTANCES.items()
            for address in addresses if secondary or address != "10.0.0.60"
        }  # fmt: skip
        self._used: set[Any] = set()

    def _pick(self, choices: Sequence[Any], weights: Sequence[float] | None = None) -> Any:
        return choices[int(self._rng.choice(len(choices), p=weights))]

    def conversation(self, *, first: bool = False) -> list[RawPacket]:
        """Return its packets, whose times begin at 0. ``first``: it may be older than the capture."""
        while True:
            here, there = self._pick([*self._owners, *OTHERS]), self._pick([*self._owners, *OTHERS])
            owners = self._owners.get(here), self._owners.get(there)
            kind = self._pick(("tcp", "udp", "icmp", "sctp", "gre", "esp"), (0.45, 0.2, 0.15, 0.08, 0.06, 0.06))
            ports = int(self._rng.integers(32768, 61000)), self._pick(SERVICES)
            used = kind, frozenset((here, there)), ports if kind in ("tcp", "udp", "sctp") else ()
            if (":" in here) == (":" in there) and owners[0] != owners[1] and used not in self._used:
                self._used.add(used)
                break
        lines = list(self._tcp(ports, first) if kind == "tcp" else self._others(kind, ports, ":" in here))
        ends = here, there
        return [(int(at * SECOND), ethernet(ip(ends[way], ends[1 - way], layer)), 1) for at, way, layer in lines]

    def _tcp(self, ports: tuple[int, int], first: bool) -> Iterator[Line]:
        def said(at: float, way: int, flags: str, payload: bytes = b"") -> Line:
            return at, way, tcp(*(ports if way == 0 else ports[::-1]), flags, payload)

        at = 0.0
        fate = self._pick(("whole", "silent", "refused", "again", "older", "open", "cut"),
                          (0.35, 0.12, 0.08, 0.08, 0.12, 0.15, 0.1))  # fmt: skip
        if fate == "silent":
            for at in (0, 1, 3, 7)[: self._rng.integers(1, 5)]:
                yield said(at, 0, "S")
            return
        if fate == "refused":
            yield said(0, 0, "S")
            yield said(0.01, 1, "RA")
            return
        for _ in range(2 if fate == "again" else 1):
            if fate != "older" or not (first and self._older):
                yield said(at, 0, "S")
                yield said(at + 0.02, 1, "SA")
                yield said(at + 0.04, 0, "A")
            at += 0.05
            for _ in range(self._rng.integers(0 if fate != "older" else 1, 6)):
                yield said(at, 0, "PA", bytes(int(self._rng.integers(0, 900))))
                yield said(at + 0.02, 1, "PA", bytes(int(self._rng.integers(0, 900))))
                yield said(at + 0.04, 0, "A")
                at += self._pick((0.1, 1, 20, 70, 300))
            if fate == "cut":
                yield said(at, int(self._rng.integers(0, 2)), "RA")
            elif fate != "open":
                yield said(at, 0, "FA")
                yield said(at + 0.02, 1, "FA")
                yield said(at + 0.04, 0, "A")
            at += self._pick((3, 100, 900))

    def _others(self, kind: str, ports: tuple[int, int], ipv6: bool) -> Iterator[Line]:
        answered, number, at = self._rng.random() < 0.7, int(self._rng.integers(0, 1 << 16)), 0.0
        echo = (icmpv6, 128) if ipv6 else (icmp, 8)

        def layer(way: int) -> Layer:
            payload = bytes(int(self._rng.integers(0, 300)))
            if kind == "icmp":
                return echo[0](echo[1] + way if ipv6 else echo[1] * (1 - way), 0, number, payload)
            if kind in ("udp", "sctp"):
                return {"udp": udp, "sctp": sctp}[kind](*(ports if way == 0 else ports[::-1]), payload)
            return other(47 if kind == "gre" else 50, payload)

        for _ in range(self._rng.integers(1, 8)):
            yield at, 0, layer(0)
            if answered:
                yield at + 0.02, 1, layer(1)
            at += self._pick((0.1, 1, 20) if kind == "icmp" else (0.1, 1, 20, 100))


def captured(rng: np.random.Generator, teller: Teller, count: int = 40, hours: float = 1.0) -> list[RawPacket]:
    """Return conversations as one capture, in the order of time."""
    packets = []
    for _ in range(count):
        begins = int(rng.random() * hours * 3600 * SECOND)
        first = begins < 300 * SECOND
        packets += [(START + begins + at, *rest) for at, *rest in teller.conversation(first=first)]
    return sorted(packets, key=lambda packet: packet[0])


def write_capture(path: Path, packets: Sequence[RawPacket]) -> Path:
    records = [pcap_record(frame, time=(at // SECOND, at % SECOND // 1000)) for at, frame, _ in packets]
    path.write_bytes(pcap_head() + b"".join(records))
    return path


class Opened(NamedTuple):
    """The answer of a replay about a connection."""

    initiator: str
    verdict: str
    answer: str


class Connections:
    """A sink of connections: what was said of each, whichever end opened it. What the cloud rejected is no connection.
    """

    def __init__(self) -> None:
        self.found: dict[Any, set[Opened]] = defaultdict(set)

    def begin(self, names: Any) -> None:
        pass

    def write(self, flows: Any) -> None:
        for row in flows[flows["answer"] != ANSWERS.index("rejected")]:
            width = 16 if row["family"] == 6 else 4
            ends = [str(ip_address(row[end][:width].tobytes())) for end in ("initiator", "responder")]
            ports = (int(row["ports"]) >> 16, int(row["ports"]) & 0xFFFF) if row["has_ports"] else (0, 0)
            key = int(row["protocol"]), frozenset(zip(ends, ports, strict=True))
            self.found[key].add(Opened(ends[0], VERDICTS[row["verdict"]], ANSWERS[row["answer"]]))


class Packets:
    """A sink of packets: the result of each, in the order of the capture."""

    def __init__(self) -> None:
        self.results: list[Any] = []
        self.instances: Sequence[str] = ()

    def begin(self, names: Any) -> None:
        self.instances = names.instances

    def write(self, headers: Any, results: Any) -> None:
        self.results += list(results.copy())


def filtered(policy: Policy, path: Path, packets: Sequence[RawPacket]) -> tuple[list[RawPacket], Blocks]:
    """Return what is sent where a policy filters, and which of it is blocked at which filter. ``path``: the capture."""
    judged = Packets()
    replay(policy, path, packets=judged)
    sent: list[RawPacket] = []
    blocked: dict[int, tuple[str, str]] = {}
    for packet, row in zip(packets, judged.results, strict=True):
        if VERDICTS[row["verdict"]] == "deny":
            side = "egress" if row["egress"]["verdict"] == VERDICTS.index("deny") else "ingress"
            blocked[packet[0]] = judged.instances[row[side]["instance"]], side
        if VERDICTS[row["verdict"]] != "moot":      # what a blocked opener did not cause
            sent.append(packet)
    return sent, lambda packet, interface, direction: blocked.get(packet.time_ns) == (interface, direction)
