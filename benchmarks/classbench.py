"""Translate ClassBench rule sets, with which packet classifiers are usually measured, into policies.

    rule_set = read(Path("acl1_1k"))
        rule_set.policy                                   a group and an instance for each destination prefix except 0/0
        draw_headers(rule_set, 1_000_000, seed=1)         rows of HEADER_DTYPE, half of which match a chosen rule

A line of such a file is ``@SOURCE/N  DESTINATION/N  LOW : HIGH  LOW : HIGH  PROTOCOL/MASK  [FLAGS/MASK]``, with source
ports before destination ports. README.md explains how rules are translated.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv4Network
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast import HEADER_DTYPE, Policy, load
from sgfast.policy.model import ICMP, PORT_PROTOCOLS, TCP, UDP, Instance, Quotas, Rule, SecurityGroup

#: The path of the rule sets within the corpus.
FOLDER = Path("rules", "neurocuts", "classbench")
NAMES = ("acl1_1k", "fw1_1k", "ipc1_1k", "acl1_10k", "fw1_10k", "ipc1_10k")

_LINE = re.compile(
    r"@([\d./]+)\s+([\d./]+)\s+(\d+)\s*:\s*(\d+)\s+(\d+)\s*:\s*(\d+)\s+(0x\w+)/(0x\w+)(?:\s+(0x\w+)/(0x\w+))?\s*"
)
_ALL_PORTS = (0, 65535)
_ECHO_REQUEST = 8

#: A rule in the form for yardsticks. ANY_PROTOCOL stands for all protocols.
PREFIX_RULE = np.dtype([
    ("source", "<u4"), ("source_mask", "<u4"), ("destination", "<u4"), ("destination_mask", "<u4"), ("number", "<i4"),
    ("protocol", "<u2"), ("first", "<u2"), ("last", "<u2"), ("spare", "<u2"),
])  # fmt: skip
ANY_PROTOCOL = 256


@dataclass(frozen=True)
class RuleSet:
    """A rule set as a policy.

    ``rules`` is an array of PREFIX_RULE, in order of precedence, with the policy's rule numbers. ``lines`` is the
    number of rules in the file. ``left_out`` counts omitted rules by reason. ``flags_ignored`` counts other rules whose
    condition on TCP flags is ignored.
    """

    policy: Policy
    rules: NDArray[Any]
    lines: int
    left_out: Counter[str]
    flags_ignored: int

    def note(self) -> str:
        """Describe the lines of the file that the policy leaves out."""
        out = ", ".join(f"{count:,} {why}" for why, count in self.left_out.items() if count)
        flags = f"; TCP flags ignored in {self.flags_ignored:,}" if self.flags_ignored else ""
        return f"{self.lines:,} rules; left out: {out or 'none'}{flags}"


def read(path: Path, copies: int = 1) -> RuleSet:
    """Read a rule set. Raises ValueError, which names the line, if the file is not a rule set.

    ``copies`` is how many times the policy contains the rules, up to 16. In each copy, all prefixes that are long
    enough start with other first four bits.
    """
    left_out = Counter({"with source ports": 0, "inexpressible": 0, "duplicates": 0})
    by_destination: dict[IPv4Network, dict[tuple[Any, ...], None]] = {}
    lines = flags_ignored = 0
    numbered = list(enumerate(path.read_text().splitlines(), 1))
    for copy, (place, line) in product(range(copies), numbered):
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"{path}:{place}: not a ClassBench rule (@SOURCE DESTINATION PORTS PORTS PROTOCOL)")
        lines += 1
        source, destination = (_moved(IPv4Network(text, strict=False), copy) for text in (found[1], found[2]))
        source_ports, ports = (int(found[3]), int(found[4])), (int(found[5]), int(found[6]))
        protocol, mask = int(found[7], 16), int(found[8], 16)
        named = protocol if mask else None
        if source_ports != _ALL_PORTS:
            left_out["with source ports"] += 1
            continue
        restricts_ports = ports != _ALL_PORTS
        if mask not in (0, 255) or (restricts_ports and (named not in PORT_PROTOCOLS or not 0 < ports[0] <= ports[1])):
            left_out["inexpressible"] += 1
            continue
        rules = by_destination.setdefault(destination, {})
        rule = named, (ports,) if restricts_ports else None, source if source.prefixlen else None
        if rule in rules:
            left_out["duplicates"] += 1
            continue
        rules[rule] = None
        flags_ignored += found[10] is not None and int(found[10], 16) != 0
    policy = _policy(by_destination)
    return RuleSet(policy, _prefix_rules(by_destination), lines, left_out, flags_ignored)


def _moved(prefix: IPv4Network, copy: int) -> IPv4Network:
    if prefix.prefixlen < 4:
        return prefix
    return IPv4Network((int(prefix.network_address) ^ copy << 28, prefix.prefixlen))


def _policy(by_destination: dict[IPv4Network, dict[tuple[Any, ...], None]]) -> Policy:
    names = {prefix: f"to-{prefix.network_address}-{prefix.prefixlen}" for prefix in by_destination}
    groups = [
        SecurityGroup(
            names[prefix],
            tuple(
                Rule(f"{names[prefix]}/inbound/{n}", "inbound", 4, protocol, ports, peer=peer)
                for n, (protocol, ports, peer) in enumerate(rules, 1)
            ),
        )
        for prefix, rules in by_destination.items()
    ]
    instances = [
        Instance(f"i-{n}", "default", (prefix,), tuple(names[each] for each in _around(prefix) if each in names))
        for n, prefix in enumerate(by_destination)
        if prefix.prefixlen
    ]
    quotas = Quotas(security_groups=len(groups), rules_per_group=max(len(group.rules) for group in groups))
    # A policy made by a program is checked at its first use. Check it now, outside the measurement.
    return load(Policy(security_groups=tuple(groups), instances=tuple(instances), quotas=quotas))


def _around(prefix: IPv4Network) -> list[IPv4Network]:
    """Return the prefix and all prefixes that contain it."""
    return [prefix.supernet(new_prefix=length) for length in range(prefix.prefixlen, -1, -1)]


def _prefix_rules(by_destination: dict[IPv4Network, dict[tuple[Any, ...], None]]) -> NDArray[Any]:
    rows: list[tuple[int, ...]] = []
    for prefix, rules in by_destination.items():
        for protocol, ports, peer in rules:
            source = peer or IPv4Network("0.0.0.0/0")
            first, last = ports[0] if ports else _ALL_PORTS
            rows.append((
                int(source.network_address), int(source.netmask), int(prefix.network_address), int(prefix.netmask),
                len(rows), ANY_PROTOCOL if protocol is None else protocol, first, last, 0,
            ))  # fmt: skip
    return np.array(rows, dtype=PREFIX_RULE)


def draw_headers(rule_set: RuleSet, wanted: int, *, seed: int) -> NDArray[Any]:
    """Draw openers to instances.

    Half of them match a rule, each rule with the same probability. The rest take their destination from one rule and
    all other fields from another rule, so that many match only less specific rules, or none.
    """
    rng = np.random.default_rng((seed, 6))
    rules = rule_set.rules
    one = rng.integers(0, len(rules), wanted)
    other = np.where(rng.random(wanted) < 0.5, rng.integers(0, len(rules), wanted), one)
    # Openers for a rule with any destination go to one of the instances.
    specific = np.flatnonzero(rules["destination_mask"])
    one = np.where(rules["destination_mask"][one], one, rng.choice(specific, wanted))
    protocol = rules["protocol"][other]
    protocol = np.where(protocol == ANY_PROTOCOL, rng.choice([TCP, UDP], wanted), protocol)
    has_ports = np.isin(protocol, list(PORT_PROTOCOLS))
    rows = np.zeros(wanted, dtype=HEADER_DTYPE)
    rows["src"][:, :4] = _addresses(rng, rules["source"][other], rules["source_mask"][other])
    rows["dst"][:, :4] = _addresses(rng, rules["destination"][one], rules["destination_mask"][one])
    rows["sport"] = np.where(has_ports, rng.integers(32768, 61000, wanted), 0)
    rows["dport"] = np.where(has_ports, rng.integers(rules["first"][other], rules["last"][other].astype(int) + 1), 0)
    rows["has_ports"], rows["has_icmp"] = has_ports, protocol == ICMP
    rows["icmp_type"] = np.where(protocol == ICMP, _ECHO_REQUEST, 0)
    rows["tcp_flags"] = np.where(protocol == TCP, 2, 0)
    rows["family"], rows["protocol"], rows["wire"] = 4, protocol, 64
    return rows


def _addresses(rng: np.random.Generator, base: NDArray[Any], mask: NDArray[Any]) -> NDArray[Any]:
    noise = rng.integers(0, 1 << 32, len(base), dtype=np.uint32)
    drawn: NDArray[Any] = base | (noise & ~mask)
    return drawn.astype(">u4").view(np.uint8).reshape(-1, 4)
