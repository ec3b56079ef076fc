"""Draw a world from its seed: an account, true traffic, the rules to be judged, and how it is logged."""

from __future__ import annotations

import random
from dataclasses import dataclass
from ipaddress import IPv4Address

from simulated_worlds.account import ICMP, TCP, UDP, Account, Filters, Instance, Rule
from simulated_worlds.connections import Connection, tracked
from simulated_worlds.kinds import DAY, HARD, HOUR, PLAIN, Kind, Scene, busy_site, stateless_groups

VERSIONS = ("v2", "v3", "v5", "zeek")
#: Plain worlds have no ICMP, scans, NAT, refusals, older connections or fixed ports, and nothing is missing in their
#: logs.
LABELS = ("plain, usual ports", "plain, any ports", "other")
#: The interface of the NAT gateway, and that of the earlier owner of an address.
GATEWAY, EARLIER = "eni-0nat", "eni-0old"


@dataclass
class World:
    seed: int
    version: str
    account: Account
    kinds: list[str]
    #: When the log begins, in seconds since 1970, and how long it is.
    begin: int
    length: float
    interval: int
    #: The part of the records whose times are off by up to 60 s, and of those that arrive hours late.
    off: float
    late: float
    logged: set[str]
    gateway: str
    connections: list[Connection]
    rules: dict[str, Rule]
    #: One of LABELS.
    label: str

    def __post_init__(self) -> None:
        self.truth = list(tracked(self.connections))
        self.filters = Filters(self.account, self.rules)

    def interface(self, connection: Connection, address: str) -> str:
        """Return the interface that had an address while a connection lived, or "" if none had that is logged."""
        if address == connection.earlier_owner:
            return EARLIER
        instance = self.account.by_address.get(address)
        return instance.interface if instance and instance.interface in self.logged else ""

    def is_seen(self, connection: Connection) -> bool:
        """Return whether a record shows a part of it."""
        shown = {True: "opener", False: "responder"}
        return self.is_logged(connection) and any(
            0 <= sent.time < self.length and shown[sent.by_opener] != connection.unseen for sent in connection.sent
        )

    def is_logged(self, connection: Connection) -> bool:
        ends = (connection.opener, connection.responder)
        if self.version == "zeek":
            # Zeek has no interfaces. An instance that it does not see is in no row, not even as a peer.
            inside = [self.interface(connection, end) for end in ends if end in self.account.by_address]
            return connection.protocol in (ICMP, TCP, UDP) and all(inside) and not connection.rejected_by
        return any(self.interface(connection, end) for end in ends)

    def denial(self, c: Connection, filters: Filters | None = None) -> str:
        return (filters or self.filters).denial(c.opener, c.responder, c.protocol, c.opener_port, c.port)


def draw(seed: int, *, version: str = "", plain: bool | None = None) -> World:
    rng = random.Random(f"world {seed}")
    version, is_plain = version or rng.choice(VERSIONS), rng.random() < 0.35 if plain is None else plain
    length = rng.choice((rng.uniform(HOUR, 6 * HOUR), rng.uniform(6, 48) * HOUR))
    if rng.random() < 0.2:
        length = rng.uniform(31, 33) * DAY
    kinds: list[Kind] = [*PLAIN] if is_plain else [*PLAIN[: rng.randint(1, 2)], *rng.sample(HARD, rng.randint(1, 6))]
    if not is_plain and rng.random() < 0.3:
        kinds = [busy_site, *kinds[-rng.randint(1, 3) :]]
    account = _account(rng, stateless=stateless_groups in kinds)
    public = [str(IPv4Address(rng.randrange(11 << 24, 100 << 24))) for _ in range(rng.randint(3, 25))]
    offices = [f"192.168.{rng.randint(0, 9)}.{n}" for n in range(10, 10 + rng.randint(1, 4))]
    scene = Scene(rng, account, length, public, offices, gateway="10.0.0.250")
    label = "other"
    if is_plain:
        scene.has_unusual_ports = rng.random() < 0.5
        label = LABELS[scene.has_unusual_ports]
    elif account.has_ids and version != "zeek":
        taken = rng.choice(account.instances)
        if taken.groups[0] not in account.stateless:
            scene.reused, scene.taken_over = taken.address, length * rng.uniform(0.3, 0.7)
    connections = [c for kind in kinds for c in kind(scene)]
    if any(c.earlier_owner for c in connections):
        connections = [c for c in connections if c.earlier_owner or _begins_later(c, scene)]
    logged = {i.interface for i in account.instances} | {GATEWAY}
    if not is_plain and rng.random() < 0.25:
        logged = {i.interface for i in rng.sample(account.instances, rng.randint(1, len(account.instances)))}
    if not is_plain and rng.random() < 0.2:
        _hide_an_end(rng, connections)
    rules = _rules(rng, account, connections)
    return World(
        seed, version, account, [kind.__name__ for kind in kinds], begin=1_790_000_000 + rng.randrange(10**7),
        length=length, interval=rng.choice((60, 600)), off=rng.choice((0.0, 0.0, 0.05, 0.3)),
        late=0.0 if is_plain else rng.choice((0.0, 0.0, 0.0, 0.0, 0.02)), logged=logged, gateway=scene.gateway,
        connections=connections, rules=rules,
        label=label,
    )  # fmt: skip


def _account(rng: random.Random, *, stateless: bool) -> Account:
    groups = [f"g{n}" for n in range(rng.randint(2, 6))]
    subnets, instances = rng.randint(1, 2), []
    for n in range(rng.randint(3, 40)):
        address = f"10.0.{n % subnets}.{10 + n}"
        some = rng.sample(groups, rng.choice((1, 1, 1, 2)) if len(groups) > 1 else 1)
        instances.append(Instance(f"i{n}", address, f"eni-0{n:04x}", tuple(some)))
    if stateless:
        instances += [Instance(f"s{n}", f"10.0.0.{100 + n}", f"eni-0{n:04x}5", ("open",)) for n in range(2)]
    return Account(instances, has_ids=rng.random() < 0.8, stateless={"open"} if stateless else set())


def _begins_later(connection: Connection, scene: Scene) -> bool:
    return scene.reused not in (connection.opener, connection.responder) or connection.sent[0].time > scene.taken_over


def _hide_an_end(rng: random.Random, connections: list[Connection]) -> None:
    """Let the records of one end be missing for some TCP connections with data."""
    share, unseen = rng.choice((0.02, 0.3, 0.9)), rng.choice(("opener", "responder", "responder"))
    for connection in connections:
        has_data = connection.protocol == TCP and connection.answered and len(connection.sent) > 4
        if has_data and not connection.gateway and rng.random() < share:
            connection.unseen = unseen


def _rules(rng: random.Random, account: Account, connections: list[Connection]) -> dict[str, Rule]:
    """Return rules for the traffic, without some that it needs and with some that it does not."""
    styles: dict[object, object] = {}

    def style(key: object, *choices: object) -> object:
        return styles.setdefault(key, rng.choice(choices))

    def peer(group: str, key: object, address: str) -> str:
        instance = account.by_address.get(address)
        network = address.rpartition(".")[0] + ".0/24"
        if instance is not None:
            return str({"group": instance.groups[0], "network": network, "any": ""}[
                str(style((group, key), "group", "group", "network", "any"))])  # fmt: skip
        return str({"any": "", "network": network, "host": f"{address}/32"}[
            str(style((group, key, "outside"), "any", "any", "network", "host"))])  # fmt: skip

    needed: dict[Rule, None] = {}
    for c in connections:
        if c.rejected_by or c.earlier_owner or c.kind.startswith("scan"):
            continue
        ports, service = (c.port, c.port) if c.protocol in (TCP, UDP) else None, (c.protocol, c.port)
        server, client = account.by_address.get(c.responder), account.by_address.get(c.opener)
        if server is not None:
            group = server.groups[0]
            needed[Rule(group, "inbound", c.protocol, ports, peer(group, service, c.opener))] = None
        if client is not None:
            group = client.groups[0]
            if style((group, "outbound"), "all", "all", "exact") == "all":
                needed[Rule(group, "outbound", None, None, "")] = None
            else:
                needed[Rule(group, "outbound", c.protocol, ports, peer(group, ("to", *service), c.responder))] = None
    for group in account.stateless:
        replies = [Rule(group, direction, protocol, (1024, 65535), "")
                   for direction in ("inbound", "outbound") for protocol in (TCP, UDP)]  # fmt: skip
        needed |= dict.fromkeys(rng.sample(replies, rng.randint(0, 4)))
    dropped = rng.choice((0.0, 0.1, 0.3, 0.5))
    kept = [rule for rule in needed if rng.random() >= dropped]
    for _ in range(rng.randint(0, 8)):
        port = rng.choice((22, 23, 80, 443, 445, 3389, 6443, 10250, rng.randint(1, 65535)))
        group, direction = rng.choice(account.groups()), rng.choice(("inbound", "inbound", "outbound"))
        protocol, other = rng.choice((TCP, TCP, UDP)), rng.choice(("", "198.18.0.0/15"))
        kept.append(Rule(group, direction, protocol, (port, port), other))
    by_group: dict[str, int] = {}
    rules: dict[str, Rule] = {}
    for rule in dict.fromkeys(kept):
        by_group[rule.group] = by_group.get(rule.group, 0) + 1
        if by_group[rule.group] <= 200:
            rules[f"r{len(rules)}"] = rule
    return rules
