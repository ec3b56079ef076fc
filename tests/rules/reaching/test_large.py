"""Large random policies: what rows say of random openers is what the engine says of them (SPEC 12.5, 12.6)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import numpy as np
from effort import some
from numpy.typing import NDArray

from sgfast import HEADER_DTYPE, VERDICTS, Engine, Policy
from sgfast.policy.model import (
    PORT_PROTOCOLS,
    AddressGroup,
    AddressGroupPeer,
    GroupPeer,
    Instance,
    Network,
    Rule,
    SecurityGroup,
    Settings,
    Vpc,
)
from sgfast.policy.networks import is_multicast_address
from sgfast.rules.reaching.difference import difference
from sgfast.rules.reaching.names import Part
from sgfast.rules.reaching.rows import Row, reach
from sgfast.rules.reaching.services import named_service
from sgfast.rules.services import KEYS

Address = IPv4Address | IPv6Address
Mask = NDArray[np.bool_]

#: A packet comes when no connection before it is remembered any more.
PAUSE_NS = 1_000 * 10**9
SPACE: dict[int, Network] = {4: ip_network("10.0.0.0/16"), 6: ip_network("2001:db8::/112")}
BOUNDS = (0, 1, 22, 80, 443, 1000, 1024, 5432, 8080, 32768, 65535)


class Drawn:
    """Draws policies with deny rules, priorities, prefixes as addresses, peered VPCs, and both families."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.groups = [f"g{n}" for n in range(12)]

    def pick(self, items: Sequence[Any]) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def network(self, family: int, lengths: Sequence[int]) -> Network:
        length = self.pick(lengths)
        top = SPACE[family].prefixlen
        number = int(SPACE[family].network_address) | int(self.rng.integers(1 << length)) << (16 - length)
        return IPv4Network((number, top + length)) if family == 4 else IPv6Network((number, top + length))

    def rule(self, group: str, n: int) -> Rule:
        family = self.pick((4, 4, 6))
        protocol = self.pick((None, 6, 6, 6, 17, 17, 1 if family == 4 else 58, 47))
        ports = icmp_type = None
        if protocol in (6, 17) and self.rng.random() < 0.9:
            first = self.pick(BOUNDS)
            ports = ((first, min(65535, first + int(self.pick((0, 0, 5, 3000))))),)
        if protocol in (1, 58):
            icmp_type = self.pick((None, 8, 9, 128, 200))
        networks = self.network(family, range(17)), self.network(family, (8, 12, 16))
        peer = self.pick((None, *networks, GroupPeer(self.pick(self.groups)), AddressGroupPeer("some")))
        return Rule(
            f"{group}/{n}", self.pick(("inbound", "inbound", "outbound")), family, protocol, ports, icmp_type, None,
            peer, self.pick(("allow", "allow", "allow", "deny")), self.pick((1, 1, 2, 3)),
        )  # fmt: skip

    def security_group(self, name: str) -> SecurityGroup:
        rules = [self.rule(name, n) for n in range(int(self.rng.integers(18)))]
        return SecurityGroup(name, tuple(rules))

    def policy(self) -> Policy:
        owned: set[Network] = set()
        instances = []
        for n in range(100):
            drawn = [self.network(f, (16, 16, 16, 16, 14, 10)) for f in self.pick(((4,), (4,), (6,), (4, 6), (4, 4)))]
            addresses = tuple(each for each in dict.fromkeys(drawn) if each not in owned)
            owned.update(addresses)
            groups = tuple(dict.fromkeys(self.pick(self.groups) for _ in range(int(self.rng.integers(1, 4)))))
            # The third VPC has the same addresses as the others and is not peered with them.
            if addresses:
                instances.append(Instance(f"i{n}", self.pick(("a", "a", "a", "c")), addresses, groups))
        beside = IPv4Network("172.16.0.0/24"), IPv6Network("2001:db8:1::/64")
        instances.append(Instance("peer", "b", beside, ("g0", "g1")))
        some_addresses = tuple(self.network(family, (4, 8, 16)) for family in (4, 4, 4, 6))
        return Policy(
            (Vpc("a"), Vpc("b", self.pick(("", "north"))), Vpc("c")),
            frozenset({frozenset({"a", "b"})}),
            (AddressGroup("some", some_addresses),),
            tuple(map(self.security_group, self.groups)),
            tuple(instances),
            Settings("aws"),  # which has port 0
        )

    def changed(self, policy: Policy) -> Policy:
        """Another policy: some other rules, some instances gone or in other groups."""
        groups = [self.security_group(g.name) if self.rng.random() < 0.2 else g for g in policy.security_groups]
        instances = [
            replace(each, security_groups=(self.pick(self.groups),)) if self.rng.random() < 0.1 else each
            for each in policy.instances
            if self.rng.random() < 0.95
        ]
        return replace(policy, security_groups=tuple(groups), instances=tuple(instances))


class Openers:
    """Random openers of one VPC and family: numbers of addresses and of services from a pool, and the verdicts."""

    def __init__(self, policies: Sequence[Policy], vpc: str, family: int, count: int, rng: np.random.Generator) -> None:
        self.family = family
        self._known: dict[tuple[Part, int, int], Mask] = {}
        self.pool = self._addresses(policies, family, rng)
        types = (8, 9, 128, 200) if family == 4 else (128, 200)
        self.services = sorted(
            {protocol * KEYS + port for protocol in (6, 17) for port in (*BOUNDS, *(b + 1 for b in BOUNDS[:-1]))}
            | {(1 if family == 4 else 58) * KEYS + 256 * kind + 1 for kind in types}
            | {47 * KEYS, 200 * KEYS}
        )
        self.src = rng.integers(len(self.pool), size=count)
        self.dst = rng.integers(len(self.pool), size=count)
        self.service = rng.integers(len(self.services), size=count)
        self.engines = [Engine(policy, vpc=vpc) for policy in policies]
        self.owners = [self._owners(engine) for engine in self.engines]
        self.judged = [self._is_judged(*owners, vpc) for owners in self.owners]
        self.allowed = [self._allowed(n) for n in range(len(policies))]

    def _addresses(self, policies: Sequence[Policy], family: int, rng: np.random.Generator) -> list[Address]:
        """Addresses of instances, at the edges of rules' networks, somewhere, and multicast."""
        networks = {n for policy in policies for instance in policy.instances for n in instance.addresses}
        networks |= {
            rule.peer for policy in policies for group in policy.security_groups for rule in group.rules
            if isinstance(rule.peer, IPv4Network | IPv6Network)
        }  # fmt: skip
        found = {address for network in networks for address in (network[0], network[-1])}
        found |= {SPACE[each][int(rng.integers(1 << 16))] for each in (4, 6) for _ in range(100)}
        found |= set(map(ip_address, ("224.0.0.5", "8.8.8.8", "ff02::5", "2600::1")))
        return sorted((each for each in found if each.version == family), key=int)

    def _owners(self, engine: Engine) -> tuple[list[Instance | None], list[Instance | None]]:
        """The owner of each address as a source, and as a destination."""
        found = [engine.compiled.classifier.owner_of(address.packed) for address in self.pool]
        source = [engine.instances[n] if n >= 0 else None for n in found]
        return source, [None if is_multicast_address(a) else owner for a, owner in zip(self.pool, source, strict=True)]

    def _is_judged(self, source: list[Instance | None], destination: list[Instance | None], vpc: str) -> Mask:
        """The openers that filters judge in this VPC (SPEC 12.1)."""
        sent, received = (np.array([o.vpc if o else "" for o in owners]) for owners in (source, destination))
        sender, receiver = (np.array([o.name if o else "" for o in owners]) for owners in (source, destination))
        from_here = (sent == vpc)[self.src] & (sender[self.src] != receiver[self.dst])
        judged: Mask = from_here | ((sent == "")[self.src] & (received == vpc)[self.dst])
        return judged

    def _allowed(self, n: int) -> Mask:
        """The openers that the engine allows."""
        rows = np.zeros(len(self.src), dtype=HEADER_DTYPE)
        rows["time_ns"] = np.arange(len(rows)) * PAUSE_NS
        rows["wire"], rows["family"] = 64, self.family
        packed = np.array([np.frombuffer(a.packed.ljust(16, b"\0"), dtype=np.uint8) for a in self.pool])
        rows["src"], rows["dst"] = packed[self.src], packed[self.dst]
        numbers = np.array(self.services)[self.service]
        rows["protocol"] = numbers // KEYS
        is_icmp = rows["protocol"] == (1 if self.family == 4 else 58)
        rows["has_ports"] = np.isin(rows["protocol"], list(PORT_PROTOCOLS))
        rows["sport"], rows["dport"] = 40000 * (rows["has_ports"] > 0), (numbers % KEYS) * rows["has_ports"]
        rows["has_icmp"], rows["icmp_type"] = is_icmp, (numbers % KEYS // 256) * is_icmp
        rows["icmp_code"] = (numbers % 256) * is_icmp
        rows["tcp_flags"] = 2 * (rows["protocol"] == 6)
        results = self.engines[n].process(rows)
        allowed: Mask = self.judged[n] & (results["verdict"] == VERDICTS.index("allow"))
        return allowed

    def said(self, rows: Iterable[Row], n: int) -> Mask:
        """The openers that the rows say are allowed, in the names of the n-th policy."""
        found = np.zeros(len(self.src), dtype=bool)
        for row in rows:
            if self.family in row.families:
                source = self._meant(row.sources, n, 0)[self.src]
                found |= source & self._meant(row.destinations, n, 1)[self.dst] & self._asked(row)[self.service]
        return found & self.judged[n]

    def _asked(self, row: Row) -> Mask:
        ranges = named_service(row.services.removeprefix("all except ")).of(self.family)
        asked = np.array([any(first <= each <= last for first, last in ranges) for each in self.services])
        return asked ^ row.services.startswith("all except ")

    def _meant(self, parts: Iterable[Part], n: int, role: int) -> Mask:
        found = np.zeros(len(self.pool), dtype=bool)
        for part in parts:
            if (part, n, role) not in self._known:
                owned = zip(self.pool, self.owners[n][role], strict=True)
                meant = [self._is_meant(part, n, address, owner) for address, owner in owned]
                self._known[part, n, role] = np.array(meant, dtype=bool)
            found |= self._known[part, n, role]
        return found

    def _is_meant(self, part: Part, n: int, address: Address, owner: Instance | None) -> bool:
        names = () if owner is None else (owner.name, *owner.security_groups)
        match part.kind:
            case "any":
                return True
            case "instances":
                return owner is not None and not {*names} & {*part.without}
            case "group":
                return part.name in names[1:]
            case "instance":
                return part.name in names[:1] and (not part.addresses or _is_in(address, part.addresses))
            case "address-group":
                listed = self.engines[n].policy.address_group_by_name[part.name].addresses
                return owner is None and any(address in network for network in listed)
            case _:
                return owner is None and _is_in(address, [part.name]) and not _is_in(address, part.without)


_network = cache(ip_network)


def _is_in(address: Address, networks: Iterable[str]) -> bool:
    return any(address in _network(network) for network in networks)


def test_the_engine_allows_what_rows_say_and_nothing_else() -> None:
    allowed = opened = 0
    for seed in range(some(1, 5)):
        print("seed", seed)
        drawn = Drawn(seed)
        old = drawn.policy()
        new = drawn.changed(old)
        rows, found = reach(old).rows, difference(old, new)
        for vpc in ("a", "b", "c"):
            for family in (4, 6):
                openers = Openers((old, new), vpc, family, some(3_400, 34_000), drawn.rng)
                before, after = openers.allowed
                assert (openers.said(rows, 0) == before).all()
                assert (openers.said(found.opened, 1) == (after & ~before)).all()
                assert (openers.said(found.closed, 0) == (before & ~after)).all()
                allowed += int(before.sum())
                opened += int((after & ~before).sum())
    print("allowed", allowed, "opened", opened)
    assert allowed > 100 and opened > 20
