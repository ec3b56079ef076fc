"""Two instances and two strangers before the reference model, for tests of it against docs/spec.md.

A ``Scene`` has, in each family, two instances ``web`` and ``db`` and two strangers ``client`` and ``other``. ``say``
sends one packet and answers with verdict and reason, "allow rule" say.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import frames as f
import pytest
from datagrams import Datagram

from sgfast.policy.model import (
    Instance,
    Policy,
    Rule,
    SecurityGroup,
    Settings,
    Vpc,
)
from sgfast.reference.engine import ReferenceEngine
from sgfast.reference.verdicts import PacketVerdict

ADDRESSES = {
    4: {"web": "10.0.0.5", "db": "10.0.0.6", "client": "192.0.2.9", "other": "192.0.2.10"},
    6: {"web": "2001:db8::5", "db": "2001:db8::6", "client": "2001:db8:ff::9", "other": "2001:db8:ff::a"},
}
both_families = pytest.mark.parametrize("family", [4, 6])
S = 10**9


def inbound(family=4, protocol=None, port=None, *, id="in", **more) -> Rule:
    ports = ((port, port),) if isinstance(port, int) else port
    return Rule(id, "inbound", family, protocol, ports, **more)


def outbound(family=4, protocol=None, port=None, *, id="out", **more) -> Rule:
    return replace(inbound(family, protocol, port, id=id, **more), direction="outbound")


def instance(name, groups, *addresses, vpc="default") -> Instance:
    return Instance(name, vpc, tuple(ip_network(a) for a in addresses), tuple(groups))


class Scene:
    """Rules are those of web's group ``w`` and db's group ``d``."""

    def __init__(self, family=4, web=(), db=(), *, policy=None, settings=None, **options):
        self.names = ADDRESSES[family]
        self.family = family
        self.policy = policy or Policy(
            security_groups=(SecurityGroup("w", tuple(web)), SecurityGroup("d", tuple(db))),
            instances=tuple(
                instance(name, [group], ADDRESSES[4][name], ADDRESSES[6][name])
                for name, group in (("web", "w"), ("db", "d"))
            ),
            settings=settings or Settings(),
        )
        self.engine = ReferenceEngine(self.policy, **options)
        self.now = 0.0

    def send(self, src, dst, layer, *, at=None, **options) -> PacketVerdict:
        self.now = self.now if at is None else at
        packet = f.ip(self.names.get(src, src), self.names.get(dst, dst), layer, **options)
        return self.frame(f.ethernet(packet))

    def frame(self, data, **options) -> PacketVerdict:
        return self.engine.process_frame(round(self.now * S), data, **options)

    def say(self, src, dst, layer, **options) -> str:
        return words(self.send(src, dst, layer, **options))

    def ping(self, identifier=1):
        return f.icmp(8, 0, identifier) if self.family == 4 else f.icmpv6(128, 0, identifier)

    def pong(self, identifier=1):
        return f.icmp(0, 0, identifier) if self.family == 4 else f.icmpv6(129, 0, identifier)

    def unreachable(self, src, dst, layer):
        """An ICMP error that quotes a packet from src to dst."""
        quoted = f.ip(self.names[src], self.names[dst], layer)
        return f.icmp_error(3, 3, quoted) if self.family == 4 else f.icmpv6_error(1, 4, quoted)


def words(verdict: PacketVerdict) -> str:
    return verdict.verdict if verdict.reason is None else f"{verdict.verdict} {verdict.reason}"


def tcp_scene(family=4, **options) -> Scene:
    """web serves port 80 and may call nobody."""
    return Scene(family, [inbound(family, 6, 80)], **options)


REQUEST = (40000, 80)
ANSWER = (80, 40000)


def handshake(scene, at=0.0):
    assert scene.say("client", "web", f.tcp(*REQUEST, "S"), at=at) == "allow rule"
    assert scene.say("web", "client", f.tcp(*ANSWER, "SA"), at=at) == "allow established"
    assert scene.say("client", "web", f.tcp(*REQUEST, "A"), at=at) == "allow established"


def vpc_policy(*, peered: bool, region="", rules=None) -> Policy:
    rules = [inbound(4), outbound(4)] if rules is None else rules
    return Policy(
        vpcs=(Vpc("a"), Vpc("b", region), Vpc("c")),
        peerings=frozenset({frozenset("ab"), frozenset("bc")} if peered else ()),
        security_groups=(SecurityGroup("g", tuple(rules)),),
        instances=(
            instance("web", ["g"], "10.0.0.5", vpc="a"),
            instance("db", ["g"], "10.0.0.6", vpc="b"),
            instance("far", ["g"], "10.0.0.7", vpc="c"),
        ),
    )


SYN4 = f.ipv4("192.0.2.9", "10.0.0.5", f.tcp(*REQUEST, "S"))
SYN6 = f.ipv6("2001:db8:ff::9", "2001:db8::5", f.tcp(*REQUEST, "S"))
#: 64 bytes of UDP to a port that is open, and to one that is not.
OPEN, SHUT = f.udp(4000, 80, bytes(56)), f.udp(4000, 81, bytes(56))


class Pieces(Scene):
    """A scene whose web serves UDP port 80; ``told`` is what became of every packet, as far as it is known."""

    def __init__(self, family: int = 4, web: Any = None, **options: Any) -> None:
        super().__init__(family, [inbound(family, 17, 80)] if web is None else web, **options)
        self.told: list[PacketVerdict] = []

    def datagram(self, layer: f.Layer = OPEN, src: str = "client", dst: str = "web", **options: Any) -> Datagram:
        return Datagram(self.names.get(src, src), self.names.get(dst, dst), layer, **options)

    def give(self, packet: bytes, *, at: float | None = None, **options: Any) -> str:
        self.now = self.now if at is None else at
        self.told.append(self.frame(f.ethernet(packet), **options))
        for number, verdict in self.engine.resolved():
            assert self.told[number - 1].verdict == "pending"
            self.told[number - 1] = verdict
        return words(self.told[-1])

    def all(self, packets: list[f.Layer]) -> list[str]:
        return [self.give(packet) for packet in packets]

    def finish(self) -> list[str]:
        self.engine.finish()
        for number, verdict in self.engine.resolved():
            assert self.told[number - 1].verdict == "pending"
            self.told[number - 1] = verdict
        return self.words()

    def words(self) -> list[str]:
        return [words(verdict) for verdict in self.told]
