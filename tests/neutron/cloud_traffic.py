"""Random traffic between the ports of an account, and with the outside: many conversations, each with its own key.

Time stands still for them: nothing here waits for a timeout. All checksums are right, as Open vSwitch looks at them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network
from random import Random
from typing import NamedTuple

import frames as f
from cloud_documents import OUTSIDE, PORTS, Account
from datagrams import Datagram, cut
from ovs_cloud import DEVICES, ROUTER
from ovs_cloud import OUTSIDE as OUTSIDE_DEVICE

#: By name: who sends what; 0 is the client.
SCRIPTS = {
    "whole": ((0, "S"), (1, "SA"), (0, "A"), (0, "PA"), (1, "A"), (1, "PA"), (0, "A"), (0, "PA"), (1, "PA"), (0, "FA"),
              (1, "A"), (1, "FA"), (0, "A")),
    "reset": ((0, "S"), (1, "SA"), (0, "A"), (0, "PA"), (1, "PA"), (0, "A"), (1, "RA")),
    "refused": ((0, "S"), (1, "RA")),
    "silent": ((0, "S"), (0, "S"), (0, "S")),
    "retried": ((0, "S"), (0, "S"), (1, "SA"), (1, "SA"), (0, "A"), (1, "PA"), (0, "PA")),
    "odd": ((0, "S"), (0, "A"), (1, "SA"), (0, "R"), (0, "S"), (1, "A"), (1, "S"), (0, "SF"), (0, ""), (1, "FA"),
            (0, "SA"), (0, "FPU")),
}  # fmt: skip
NAMES = ("whole",) * 10 + ("reset", "reset", "refused", "silent", "retried", "retried", "odd")
PROTOCOLS = (6,) * 12 + (17,) * 8 + (1,) * 6 + (132, 33, 136, 47, 50, 253)
ODD_TYPES = {4: (0, 13, 14, 5, 9, 42), 6: (129, 144, 100)}
#: Frames for one device at a time: its socket in Open vSwitch holds some more.
BURST = 48
#: Bytes: Open vSwitch can be told to take fragments that are not the last one if they have this many, but not fewer.
FRAGMENT = 400


class Place(NamedTuple):
    """Where an address lives."""

    device: str
    mac: str
    #: The number of the port in the account's list; None is the outside.
    port: str | None


OUTSIDE_PLACE = Place(OUTSIDE_DEVICE, ROUTER, None)


class Sent(NamedTuple):
    """One packet, or the fragments of one datagram, and the devices where they go in and may come out."""

    packets: list[bytes]
    source: Place
    destination: Place

    def frames(self) -> list[bytes]:
        return [ethernet(self.source.mac, self.destination.mac, packet) for packet in self.packets]


def ethernet(source: str, destination: str, packet: bytes) -> bytes:
    ends = bytes.fromhex(f"{destination}{source}".replace(":", ""))
    return ends + (b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00") + packet


@dataclass
class Talk:
    family: int
    protocol: int
    ends: tuple[tuple[str, int], tuple[str, int]]
    script: tuple[tuple[int, str], ...]
    step: int = 0
    last: bytes = b""


class Traffic:
    """Draws batches of packets whose keys are all different, so that their order does not matter."""

    def __init__(self, account: Account, rng: Random) -> None:
        self.rng = rng
        self.talks: dict[tuple[object, ...], Talk] = {}
        self.move(account)

    def move(self, account: Account) -> None:
        """From now on the account is this one. Talks of addresses that are gone end."""
        self.places = self.places_of(account)
        networks = [(ip_network(address), place) for address, place in self.places.items()]
        # The longest prefix counts.
        self._networks = sorted(networks, key=lambda pair: -pair[0].prefixlen)
        self._found: dict[str, Place] = {}
        self.inside = {
            family: [str(network[-2 % network.num_addresses]) for network, _ in networks if network.version == family]
            for family in (4, 6)
        }
        for key, talk in list(self.talks.items()):
            known = *self.inside[talk.family], *OUTSIDE[talk.family]
            if any(address not in known for address, _ in talk.ends):
                del self.talks[key]

    @staticmethod
    def places_of(account: Account) -> dict[str, Place]:
        """By address or prefix where it lives, if it is a port's."""
        return {
            entry["ip_address"]: Place(device, DEVICES[device], port["id"])
            for port in account.documents["ports"] for device in (account.devices[port["id"]],)
            for entry in (*port["fixed_ips"], *port["allowed_address_pairs"])
        }  # fmt: skip

    def place(self, address: str) -> Place:
        if address not in self._found:
            ip = ip_address(address)
            places = (place for network, place in self._networks if ip in network)
            self._found[address] = next(places, OUTSIDE_PLACE)
        return self._found[address]

    def ended(self, lost: Sequence[Sent]) -> None:
        """Most talks end when a packet did not arrive."""
        by_last = {talk.last: key for key, talk in self.talks.items()}
        for sent in lost:
            key = by_last.get(sent.packets[0])
            if key is not None and self.rng.random() < 0.8:
                del self.talks[key]

    def batch(self, size: int) -> list[Sent]:
        while len(self.talks) < size:
            self._begin()
        room = dict.fromkeys((place.device for place in self.places.values()), BURST)
        room[OUTSIDE_DEVICE] = BURST
        batch = []
        for key in self.rng.sample(list(self.talks), size):
            talk = self.talks[key]
            made = self._next(talk)
            if talk.step == len(talk.script):
                del self.talks[key]
            source, destination = (self.place(address) for address in _ends(made[0]))
            if source.device == destination.device or room[source.device] < len(made):
                continue
            room[source.device] -= len(made)
            talk.last = made[0]
            batch.append(Sent(made, source, destination))
        return batch

    def _begin(self) -> None:
        rng = self.rng
        family = rng.choice((4, 4, 6))
        ends = [rng.choice(self.inside[family]), rng.choice((self.inside, OUTSIDE)[rng.random() < 0.45][family])]
        rng.shuffle(ends)
        if self.place(ends[0]).device == self.place(ends[1]).device:
            return
        protocol = rng.choice(PROTOCOLS)
        if protocol == 1 and family == 6:
            protocol = 58
        port, service = rng.choice((1024, 40000, 30000 + rng.randrange(2000))), rng.choice(PORTS)
        name = rng.choice(NAMES)
        script = SCRIPTS[name]
        if protocol != 6:
            script = tuple((rng.choice((0, 0, 1)) if n else 0, "") for n in range(rng.randint(1, 8)))
        if protocol in (47, 50, 253):
            port = service = 0
        if protocol in (1, 58):
            port, service = rng.randrange(1 << 16), 0
        first = rng.randrange(1, len(script)) if protocol == 6 and rng.random() < 0.04 else 0
        key = protocol, *sorted(((ends[0], port), (ends[1], service)))
        self.talks.setdefault(key, Talk(family, protocol, ((ends[0], port), (ends[1], service)), script, first))

    def _next(self, talk: Talk) -> list[bytes]:
        rng = self.rng
        if talk.last and rng.random() < 0.04:
            return [self._error_about(talk)]
        way, flags = talk.script[talk.step]
        talk.step += 1
        (source, sport), (destination, dport) = talk.ends[way], talk.ends[1 - way]
        payload = bytes(rng.randrange(3) * 4)
        match talk.protocol:
            case 6:
                layer = f.tcp(sport, dport, flags, payload)
            case 17:
                if rng.random() < 0.05:
                    return self._fragments(source, destination, f.udp(sport, dport, bytes(FRAGMENT + 40)))
                layer = f.udp(sport, dport, payload)
            case 1 | 58:
                kind = {4: (8, 0), 6: (128, 129)}[talk.family][way]
                if rng.random() < 0.05:
                    kind = rng.choice(ODD_TYPES[talk.family])
                make = f.icmp if talk.protocol == 1 else f.icmpv6
                layer = make(kind, int(rng.random() < 0.03), talk.ends[0][1], payload)
            case 132:
                # A chunk without content; what is no chunk is no packet to Open vSwitch.
                layer = f.sctp(sport, dport, bytes((10, 0, 0, 4)))
            case 33:
                layer = f.dccp(sport, dport, payload)
            case 136:
                layer = f.udplite(sport, dport, payload, coverage=8)
            case protocol:
                layer = f.other(protocol, bytes(8) + payload)
        return [f.with_checksum(f.ip(source, destination, summed(source, destination, layer)))]

    def _fragments(self, source: str, destination: str, layer: f.Layer) -> list[bytes]:
        whole = Datagram(source, destination, summed(source, destination, layer), self.rng.randrange(1, 1 << 16))
        return [f.with_checksum(whole.piece(spelled)) for spelled in cut(len(layer), FRAGMENT)]

    def _error_about(self, talk: Talk) -> bytes:
        """An ICMP error about the talk's last packet, from where it went or from a router to where it came from."""
        source, destination = _ends(talk.last)
        if self.place(destination).port is None and self.rng.random() < 0.5:
            destination = self.rng.choice([a for a in OUTSIDE[talk.family] if self.place(a).port is None])
        if talk.family == 4:
            layer = f.icmp_error(self.rng.choice((3, 3, 11, 12)), 0, talk.last, quoted_bytes=28)
        else:
            layer = f.icmpv6_error(self.rng.choice((1, 2, 3, 4)), 0, talk.last)
        return f.with_checksum(f.ip(destination, source, summed(destination, source, layer)))


def _ends(packet: bytes) -> tuple[str, str]:
    source, destination = map(_text, f.ends_of(packet))
    return source, destination


@lru_cache(1024)
def _text(address: bytes) -> str:
    return str(ip_address(address))


def summed(source: str, destination: str, layer: f.Layer) -> f.Layer:
    """With the checksum that its protocol has."""
    if layer.protocol == 132:
        return f.Layer(layer[:8] + struct.pack("<I", crc32c(layer)) + layer[12:], 132)
    at = {6: 16, 17: 6, 136: 6, 1: 2, 58: 2, 33: 6}.get(layer.protocol)
    if at is None:
        return layer
    over = b""
    if layer.protocol != 1:
        ends = f.packed(source) + f.packed(destination)
        over = ends + struct.pack(">II", len(layer), layer.protocol)
    found = f.checksum(over + layer)
    # UDP calls a checksum of 0 none.
    return f.Layer(layer[:at] + (found if any(found) else b"\xff\xff") + layer[at + 2 :], layer.protocol)


def crc32c(data: bytes) -> int:
    """SCTP's checksum (RFC 9260, appendix A)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
