"""Kinds of traffic. Each function yields the connections of one kind in a scene."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from simulated_worlds.account import ESP, GRE, ICMP, Account, Instance
from simulated_worlds.connections import (
    ACK,
    BEHIND_NAT,
    FIN,
    LINUX,
    SYN,
    WINDOWS,
    Connection,
    Sent,
    attempt,
    query,
    tcp,
)  # fmt: skip

USUAL = (22, 25, 80, 389, 443, 993, 1433, 2049, 3306, 3389, 5432, 5672, 6379, 8080, 8443, 9092, 9200, 27017)
HOUR, DAY = 3600, 86400


@dataclass
class Scene:
    rng: random.Random
    account: Account
    #: Seconds of the log.
    length: float
    public: list[str]
    offices: list[str]
    #: The NAT gateway's own address, and the address that had another interface until ``taken_over``.
    gateway: str
    reused: str = ""
    taken_over: float = 0.0
    #: Whether services also have ports that are not usual.
    has_unusual_ports: bool = True
    #: The ports that an address serves.
    busy: dict[str, list[int]] = field(default_factory=dict)

    def when(self) -> float:
        return self.rng.uniform(0, self.length)

    def instance(self) -> Instance:
        return self.rng.choice([i for i in self.account.instances if not self._is_stateless(i)])

    def others(self, of: Instance, count: int) -> list[Instance]:
        found = [i for i in self.account.instances if i is not of and not self._is_stateless(i)]
        return self.rng.sample(found, min(count, len(found)))

    def group(self) -> list[Instance]:
        names = [name for name in self.account.groups() if name not in self.account.stateless]
        return self.account.members(self.rng.choice(names))

    def service_port(self) -> int:
        """Return a usual port, an unusual one, or one among the ports of clients."""
        kind = self.rng.random() if self.has_unusual_ports else 0.0
        return self.rng.choice(USUAL) if kind < 0.7 else self.rng.randint(*((1024, 32767) if kind < 0.97 else LINUX))

    def _is_stateless(self, instance: Instance) -> bool:
        return instance.groups[0] in self.account.stateless


Kind = Callable[[Scene], Iterator[Connection]]


def client_port(rng: random.Random, ports: tuple[int, int] = LINUX) -> int:
    return rng.randint(*ports)


# Traffic of plain worlds


def services(scene: Scene) -> Iterator[Connection]:
    """Clients of TCP services, inside and outside."""
    rng = scene.rng
    for _ in range(rng.randint(2, 6)):
        port, ports = scene.service_port(), rng.choice((LINUX, LINUX, WINDOWS))
        shape = rng.choice(("inside", "inside", "from outside", "to outside"))
        servers = [i.address for i in scene.group()]
        clients = [i.address for i in scene.group()]
        if shape == "from outside":
            clients = rng.sample(scene.public, rng.randint(1, len(scene.public)))
            clients = rng.choice((clients, scene.offices))
        elif shape == "to outside":
            clients, servers = servers, rng.sample(scene.public, rng.randint(1, 3))
        for server in servers:
            scene.busy.setdefault(server, []).append(port)
        for client in clients:
            for server in rng.sample(servers, rng.randint(1, min(3, len(servers)))):
                if client == server:
                    continue
                for _ in range(rng.randint(1, 12)):
                    lasts = rng.choice((0, 0, 0, rng.uniform(10, 900)))
                    yield tcp(rng, "service", scene.when(), client, client_port(rng, ports), server, port, lasts=lasts,
                              ends=rng.choice(("fin", "fin", "rst")))  # fmt: skip


def names(scene: Scene) -> Iterator[Connection]:
    """DNS and the like, from random ports."""
    rng = scene.rng
    port = rng.choice((53, 53, 53, 161, 1812, 389))
    server = rng.choice([*scene.offices, scene.instance().address])
    for client in scene.group():
        if client.address != server:
            for _ in range(rng.randint(2, 25)):
                yield query(rng, "names", scene.when(), client.address, client_port(rng), server, port)


def busy_site(scene: Scene) -> Iterator[Connection]:
    """A service so busy that all other traffic is below the thresholds of evidence."""
    rng, server = scene.rng, scene.instance()
    for _ in range(rng.randint(1000, 3000)):
        client = rng.choice(scene.public)
        yield tcp(rng, "busy site", scene.when(), client, client_port(rng), server.address, 443)


# Traffic that makes logs hard to read


def pools(scene: Scene) -> Iterator[Connection]:
    """Connections of hours or days, most of them older than the log."""
    rng, port = scene.rng, scene.service_port()
    server = scene.instance()
    for client in scene.others(server, 3):
        for _ in range(rng.randint(1, 6)):
            at = rng.uniform(-3 * DAY, scene.length / 2)
            lasts = rng.choice((rng.uniform(HOUR, DAY), 40 * DAY))
            yield tcp(rng, "pool", max(at, -7200.0), client.address, client_port(rng), server.address, port,
                      lasts=min(lasts, scene.length + 9000 - at), gap=max(45.0, scene.length / 400))  # fmt: skip


def nat_gateway(scene: Scene) -> Iterator[Connection]:
    rng = scene.rng
    clients = scene.group()
    for peer in rng.sample(scene.public, min(3, len(scene.public))):
        port = rng.choice((443, 443, scene.service_port()))
        for client in clients:
            for _ in range(rng.randint(1, 8)):
                found = tcp(rng, "nat", scene.when(), client.address, client_port(rng), peer, port)
                found.gateway = scene.gateway
                yield found


def low_client_ports(scene: Scene) -> Iterator[Connection]:
    """Clients behind NAT, which have any port from 1024 on."""
    rng, server, port = scene.rng, scene.instance(), scene.service_port()
    for client in rng.sample(scene.public, rng.randint(1, len(scene.public))):
        for _ in range(rng.randint(1, 15)):
            yield tcp(rng, "low client port", scene.when(), client, client_port(rng, BEHIND_NAT), server.address, port)


def scans(scene: Scene) -> Iterator[Connection]:
    """Scans of SYNs, ACKs or FINs. Of the latter two each is one packet of 40 bytes."""
    rng, scanner = scene.rng, scene.rng.choice(scene.public)
    flags = rng.choice((SYN, SYN, ACK, FIN))
    fates = rng.choice((("silent",), ("refused",), ("rejected",), ("silent", "refused", "rejected")))
    ports = rng.sample(range(1, 10000), rng.randint(10, 150))
    at = scene.when()
    for target in scene.others(scene.instance(), 6):
        sport = client_port(rng)
        for port in [*ports, *scene.busy.get(target.address, [])]:
            at += rng.uniform(0.01, 2)
            is_open = flags == SYN and port in scene.busy.get(target.address, []) and rng.random() < 0.7
            yield attempt(rng, f"scan {flags}", at, scanner, sport, target.address, port, flags=flags,
                          outcome="half-open" if is_open else rng.choice(fates))  # fmt: skip


def scanners_with_service_ports(scene: Scene) -> Iterator[Connection]:
    """A busy port, and scanners that call it from the port of a service."""
    rng, server, port = scene.rng, scene.instance(), scene.rng.choice((8080, 8080, 8443, 9000))
    for client in scene.public:
        for _ in range(rng.randint(2, 6)):
            yield tcp(rng, "busy", scene.when(), client, client_port(rng), server.address, port)
    for scanner in rng.sample(scene.public, min(2, len(scene.public))):
        for _ in range(rng.randint(1, 3)):
            sport = rng.choice((443, 53, 80))
            yield tcp(rng, "service port scanner", scene.when(), scanner, sport, server.address, port)


def gossip(scene: Scene) -> Iterator[Connection]:
    """Members that call each other, from the port of the service over UDP."""
    rng, port = scene.rng, scene.rng.choice((7946, 8301))
    members = scene.group()
    if len(members) < 2:
        return
    for _ in range(rng.randint(10, 120)):
        one, other = (i.address for i in rng.sample(members, 2))
        yield query(rng, "gossip", scene.when(), one, port, other, port, times=rng.randint(1, 3))
    for _ in range(rng.randint(2, 30)):
        one, other = (i.address for i in rng.sample(members, 2))
        yield tcp(rng, "gossip", scene.when(), one, client_port(rng), other, port)


def nfs(scene: Scene) -> Iterator[Connection]:
    rng, server = scene.rng, scene.instance()
    for client in scene.others(server, 4):
        for _ in range(rng.randint(1, 3)):
            at = rng.choice((scene.when(), -600.0))
            yield tcp(rng, "nfs", at, client.address, rng.randint(512, 1023), server.address, 2049,
                      lasts=rng.uniform(60, scene.length), gap=max(60.0, scene.length / 300))  # fmt: skip


def fixed_ports(scene: Scene) -> Iterator[Connection]:
    """Clients that always use one port: of NTP, RADIUS or DNS."""
    rng = scene.rng
    server = rng.choice([*scene.public, *scene.offices, scene.instance().address])
    client_of, port = rng.choice(((123, 123), (123, 123), (1812, 1812), (32001, 1812), (53, 53), (10053, 53)))
    for client in scene.others(scene.instance(), rng.randint(1, 6)):
        if client.address == server:
            continue
        at, every = rng.uniform(0, 600), max(rng.choice((64, 128, 1024, 3000)), scene.length / 150)
        while at < scene.length:
            yield query(rng, "fixed ports", at, client.address, client_of, server, port)
            at += every * rng.uniform(0.9, 1.1)


def calls_back(scene: Scene) -> Iterator[Connection]:
    """SIP and its like: a service that calls its client after the timeout of their connection."""
    rng, port = scene.rng, scene.rng.choice((5060, 5060, 5080, 3478, 1701))
    server = scene.instance()
    clients = rng.choice((scene.public, scene.offices, [i.address for i in scene.others(server, 5)]))
    for client in clients[:12]:
        sport = rng.choice((port, client_port(rng)))
        at = rng.choice((rng.uniform(-1500, 0), rng.uniform(0, scene.length / 2)))
        while at < scene.length:
            yield query(rng, "registers", at, client, sport, server.address, port, times=rng.randint(1, 3))
            at += rng.uniform(1210, 1500)
            yield query(rng, "calls back", at, server.address, port, client, sport, times=rng.randint(1, 4))
            at += max(rng.uniform(1300, 6000), scene.length / 30)


def ike(scene: Scene) -> Iterator[Connection]:
    """IPsec with a public peer: IKE at equal ports, either end renewing keys, and ESP."""
    rng, peer, port = scene.rng, scene.rng.choice(scene.public), scene.rng.choice((500, 4500))
    own = scene.instance().address
    at = rng.uniform(-200, 900)
    while at < scene.length:
        one, other = (own, peer) if rng.random() < 0.6 else (peer, own)
        yield query(rng, "ike", at, one, port, other, port, times=2, gap=0.2)
        at += max(rng.uniform(1200, 4000), scene.length / 60)
    if port == 500:
        yield from _both_ways(scene, "esp", ESP, own, peer)


def wireguard(scene: Scene) -> Iterator[Connection]:
    rng, port = scene.rng, 51820
    own = scene.instance()
    peer = rng.choice([*scene.public, *(i.address for i in scene.others(own, 1))])
    at = rng.uniform(-200, 900)
    while at < scene.length:
        one, other = (own.address, peer) if rng.random() < 0.5 else (peer, own.address)
        yield query(rng, "wireguard", at, one, port, other, port, times=rng.randint(1, 12), gap=25)
        at += max(rng.uniform(100, 3000), scene.length / 100)


def tunnels(scene: Scene) -> Iterator[Connection]:
    own, protocol = scene.instance().address, scene.rng.choice((GRE, ESP))
    yield from _both_ways(scene, "tunnel", protocol, own, scene.rng.choice([*scene.public, *scene.offices]))


def _both_ways(scene: Scene, kind: str, protocol: int, one: str, other: str) -> Iterator[Connection]:
    """Packets that each end sends by itself."""
    rng = scene.rng
    for _ in range(rng.randint(1, 12)):
        at, count = scene.when(), rng.randint(3, 60)
        for opener, responder in ((one, other), (other, one)):
            begin = at + rng.uniform(0, 15)
            sent = [Sent(begin + 20.0 * n, True, 3, 1500) for n in range(count)]
            yield Connection(kind, protocol, opener, 0, responder, 0, sent, answered=False)


def stateless_groups(scene: Scene) -> Iterator[Connection]:
    rng = scene.rng
    for name in sorted(scene.account.stateless):
        for member in scene.account.members(name):
            own, office = member.address, scene.offices[0]
            for client in rng.sample(scene.public, min(4, len(scene.public))):
                for _ in range(rng.randint(1, 8)):
                    yield tcp(rng, "stateless", scene.when(), client, client_port(rng), own, 443)
            for _ in range(rng.randint(0, 10)):
                yield tcp(rng, "stateless client", scene.when(), own, client_port(rng), office, 5432)
            for _ in range(rng.randint(0, 20)):
                yield query(rng, "stateless", scene.when(), office, client_port(rng), own, 53)


def active_ftp(scene: Scene) -> Iterator[Connection]:
    rng, server = scene.rng, scene.instance()
    clients = rng.choice((scene.public, [i.address for i in scene.others(server, 3)]))
    for client in clients[:4]:
        for _ in range(rng.randint(1, 6)):
            at, sport = scene.when(), client_port(rng)
            yield tcp(rng, "ftp", at, client, sport, server.address, 21, lasts=30)
            yield tcp(rng, "ftp data", at + 2, server.address, 20, client, sport + 1)


def pings(scene: Scene) -> Iterator[Connection]:
    rng, target = scene.rng, scene.instance().address
    for source in rng.choice((scene.public[:3], [i.address for i in scene.group()])):
        if source != target:
            for _ in range(rng.randint(1, 10)):
                yield query(rng, "ping", scene.when(), source, 0, target, 0, protocol=ICMP, times=4, gap=1,
                            answered=rng.random() < 0.9)  # fmt: skip


def rejected_attempts(scene: Scene) -> Iterator[Connection]:
    """Attempts that the cloud rejects, and late packets of servers that it takes for attempts."""
    rng = scene.rng
    for _ in range(rng.randint(5, 120)):
        target = scene.instance()
        source = rng.choice([*scene.public, *(i.address for i in scene.others(target, 1))])
        port, sport = rng.choice((scene.service_port(), rng.randint(1, 1023))), client_port(rng, BEHIND_NAT)
        if rng.random() < 0.8:
            yield attempt(rng, "rejected", scene.when(), source, sport, target.address, port, outcome="rejected")
        else:
            found = query(rng, "rejected", scene.when(), source, sport, target.address, port, answered=False)
            found.rejected_by = target.address
            yield found
    for _ in range(rng.randint(0, 10)):
        server, client = scene.instance(), scene.instance()
        if server is not client:
            yield attempt(rng, "stray", scene.when(), server.address, 443, client.address, client_port(rng),
                          outcome="rejected", flags=FIN)  # fmt: skip


def refusals(scene: Scene) -> Iterator[Connection]:
    """Clients of ports that no process listens at."""
    rng, server, port = scene.rng, scene.instance(), scene.service_port()
    clients = rng.choice((scene.public[:5], [i.address for i in scene.others(server, 5)]))
    for client in clients:
        for _ in range(rng.randint(1, 10)):
            yield attempt(rng, "refused", scene.when(), client, client_port(rng), server.address, port,
                          outcome="refused")  # fmt: skip


def one_way(scene: Scene) -> Iterator[Connection]:
    """Syslog and its like, which nobody answers."""
    rng, server, port = scene.rng, scene.instance(), scene.rng.choice((514, 514, 2055, 6343))
    for client in scene.others(server, 5):
        yield query(rng, "one way", scene.when(), client.address, client_port(rng), server.address, port,
                    times=rng.randint(1, 200), gap=20, answered=False)  # fmt: skip


def earlier_owner(scene: Scene) -> Iterator[Connection]:
    """Traffic of the interface that had an instance's address before."""
    rng = scene.rng
    if not scene.reused:
        return
    for port in (22, scene.service_port()):
        for peer in [*scene.offices, *(i.address for i in scene.others(scene.account.by_address[scene.reused], 2))]:
            for _ in range(rng.randint(1, 12)):
                at = rng.uniform(0, scene.taken_over - 100)
                ends = (peer, client_port(rng), scene.reused, port)
                if rng.random() < 0.2:
                    ends = (scene.reused, client_port(rng), peer, 443)
                found = tcp(rng, "earlier owner", at, *ends)
                found.earlier_owner = scene.reused
                yield found


PLAIN: tuple[Kind, ...] = (services, names)
HARD: tuple[Kind, ...] = (
    pools, nat_gateway, low_client_ports, scans, scanners_with_service_ports, gossip, nfs, fixed_ports, calls_back, ike,
    wireguard, tunnels, stateless_groups, active_ftp, pings, rejected_attempts, refusals, one_way, earlier_owner,
)  # fmt: skip
