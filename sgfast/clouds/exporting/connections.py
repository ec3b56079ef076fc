"""Effects of a policy change on the kernel's live connections, as commands for ``conntrack`` (SPEC 13.11).

nft changes rules, but not connections. The connections are therefore listed after the new rules were loaded, when
removed rules cannot allow new connections any more. This module finds the fate of each from the old and the new policy.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

from sgfast.base.errors import ExportError
from sgfast.clouds.linux.address_sets import VpcView, views
from sgfast.clouds.linux.nft_table import TABLE
from sgfast.clouds.linux.nftables import CutKind, Interfaces, cut_set, zones
from sgfast.policy.matching import End, Packet, misfit_fields, precedence, rules_of
from sgfast.policy.model import ICMP, ICMPV6, PORT_PROTOCOLS, Direction, Instance, Policy, Rule
from sgfast.policy.yaml_nodes import shown_origin

#: The limit for comparisons of openers with rules for one list of connections; about a minute of work.
MAX_COMPARISONS = 20_000_000

_FIELD = re.compile(r"\b(src|dst|sport|dport|type|code|id|zone)=(\S+)")
_NUMBERS = ("sport", "dport", "type", "code", "id")
_FAMILY_OF = {"ipv4": 4, "ipv6": 6}
_MAX_NUMBER = (1 << 32) - 1

Fate = Literal["stays", "cut", "forgotten"]


@dataclass(frozen=True)
class Connection:
    """An entry of the kernel's connection table. Source and destination are those of its opener."""

    family: int
    protocol: int
    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    #: Ports, or the type, code and id of ICMP, by the kernel's names for them.
    numbers: dict[str, int]
    #: The seconds until the connection's deadline.
    remaining: int
    zone: int | None


def commands(
    old: Policy, new: Policy, interfaces: Interfaces, lines: Iterable[str], origin: str, version: str
) -> str:  # fmt: skip
    """Return a shell script that removes the connections that a change of the policy cuts.

    ``lines``: the output of ``conntrack -L -o extended`` after the filter of ``new`` was loaded. ``origin``: its name
    for messages. Raises ExportError for a line of another format or for too many lines, AmbiguousAddress for peers with
    the same addresses.
    """
    on_host = [name for name in interfaces if name in old.instance_by_name]
    views_old = views(old, (old.instance_by_name[name].vpc for name in on_host))
    views_new = views(new, (new.instance_by_name[name].vpc for name in on_host if name in new.instance_by_name))
    changed = _changed_groups(old, new)
    sides = {
        zone: _Side(new, old.instance_by_name[name], views_old, views_new, changed)
        for name, zone in zones(old, interfaces).items()
    }
    elements: dict[str, list[str]] = {}
    forgotten = []
    comparisons = 0
    for n, line in enumerate(lines, 1):
        if not line.strip():
            continue
        connection = _parsed(line, f"{origin}:{n}")
        side = sides.get(connection.zone)
        if side is None:
            continue
        comparisons += side.rules
        if comparisons > MAX_COMPARISONS:
            raise ExportError(
                f"{origin}:{n}",
                f"these connections take more than {MAX_COMPARISONS:,} comparisons with rules: list the "
                "connections of one instance at a time, with conntrack -L --zone",
            )
        match side.fate(connection):
            case "stays":
                continue
            case "cut" if connection.remaining:
                kind, keys = _keys(connection)
                named = elements.setdefault(cut_set(kind, connection.family, side.name), [])
                named += [f"{key} timeout {connection.remaining}s" for key in keys]
        zone = "" if connection.zone is None else f" -w {connection.zone}"
        forgotten.append(f"conntrack -D {_selection(connection)}{zone}\n")
    # The keys are denied before the entries are deleted, so that no packet in between opens a connection again.
    added = "".join(f"add element {TABLE} {name} {{ {', '.join(keys)} }}\n" for name, keys in elements.items())
    head = (
        f"# Made by sgfast {version} from {shown_origin(new.origin)}, since {shown_origin(old.origin)}:\n"
        f"# what becomes of the connections in {origin}. What is gone already is no error.\n"
    )
    return head + (f"nft -f - <<'END'\n{added}END\n" if added else "") + "".join(forgotten)


class _Side:
    """The filter of one instance, before and after the change."""

    def __init__(
        self, policy: Policy, old: Instance, views_old: Mapping[str, VpcView], views_new: Mapping[str, VpcView],
        changed: set[str],
    ) -> None:  # fmt: skip
        self.policy = policy
        self.name = old.name
        self.old, self.new = old, policy.instance_by_name.get(old.name)
        self.view_before = views_old[old.vpc]
        self.on_change = policy.settings.on_change
        self.rules = 0
        self.concerned = not changed.isdisjoint(old.security_groups)
        if self.new is not None:
            self.view = views_new[self.new.vpc]
            self.by_direction = {way: [*rules_of(policy, self.new, way)] for way in ("inbound", "outbound")}
            self.rules = max(map(len, self.by_direction.values()))
            self.stateful = all(policy.group_by_name[name].stateful for name in self.new.security_groups)
            self.concerned |= not changed.isdisjoint(self.new.security_groups)

    def fate(self, connection: Connection) -> Fate:
        """Return the fate of a connection at this instance."""
        ends = int(connection.source), int(connection.destination)
        mine = [self.view_before.owner(connection.family, end) is self.old for end in ends]
        if not any(mine):
            return "stays"      # Neither end is an address of the instance.
        direction: Direction = "outbound" if mine[0] else "inbound"
        own_address, peer = ends if mine[0] else ends[::-1]
        if (
            self.new is None
            or not self.stateful
            or self.view.owner(connection.family, own_address) is not self.new
            or self.view.owner(connection.family, peer) is self.new
        ):
            return "forgotten"      # SPEC 4.13, 6.6, 6.11
        if not self._is_cut(connection, self.new, direction, peer):
            return "stays"
        return "forgotten" if self.on_change == "forget-unmatched" else "cut"

    def _is_cut(self, connection: Connection, here: Instance, direction: Direction, peer: int) -> bool:
        match self.on_change:
            case "keep":
                return False
            case "cut-inbound":
                return self.concerned and direction == "inbound"
        address = connection.source if direction == "inbound" else connection.destination
        peer_end = End(address, self.view.owner(connection.family, peer))
        numbers = connection.numbers
        icmp_type = numbers.get("type")
        # sgfast does not store the code of an ICMP query, so 0 is used (SPEC 6.9).
        packet = Packet(
            connection.family, connection.protocol, numbers.get("dport"), icmp_type, None if icmp_type is None else 0
        )
        matching = (
            group_rule.rule for group_rule in self.by_direction[direction]
            if next(misfit_fields(self.policy, group_rule.rule, here, peer_end, packet), None) is None
        )
        winner = min(matching, key=precedence, default=None)
        return winner is None or winner.action == "deny"


def _changed_groups(old: Policy, new: Policy) -> set[str]:
    """Return the names of the groups whose rules or members differ (SPEC 6.3)."""
    before, after = _rules_and_members(old), _rules_and_members(new)
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def _rules_and_members(policy: Policy) -> dict[str, tuple[Counter[Rule], set[str]]]:
    rules_and_members: dict[str, tuple[Counter[Rule], set[str]]] = {
        group.name: (Counter(rule.without_words() for rule in group.rules), set()) for group in policy.security_groups
    }
    for instance in policy.instances:
        for name in instance.security_groups:
            rules_and_members[name][1].add(instance.name)
    return rules_and_members


def _parsed(line: str, place: str) -> Connection:
    fields: dict[str, str] = {}
    for name, value in _FIELD.findall(line):
        fields.setdefault(name, value)      # The opener's value comes before the reply's.
    try:
        family, _, _, protocol, remaining, *_ = line.split()
        source, destination = ip_address(fields["src"]), ip_address(fields["dst"])
        # The kernel lists no IPv6 zones (%). A zone may be any text, which would become a part of the commands.
        if "%" in fields["src"] + fields["dst"]:
            raise ValueError
        numbers: dict[str, int] = {name: int(fields[name]) for name in _NUMBERS if name in fields}
        zone = int(fields["zone"]) if "zone" in fields else None
        number, seconds = int(protocol), int(remaining)
        if {source.version, destination.version} != {_FAMILY_OF[family]}:
            raise ValueError
        if not all(0 <= value <= _MAX_NUMBER for value in (*numbers.values(), number, seconds, zone or 0)):
            raise ValueError
    except (ValueError, KeyError):
        raise ExportError(
            place,
            "this is no connection as conntrack -L -o extended lists them: write the list with that command",
        ) from None
    return Connection(source.version, number, source, destination, numbers, seconds, zone)


def _keys(connection: Connection) -> tuple[CutKind, tuple[str, str]]:
    """Return the kind of a connection's key, and the key of its packets in each direction (SPEC 5.1)."""
    protocol, numbers = connection.protocol, connection.numbers
    ends = str(connection.source), str(connection.destination)
    kind: CutKind = "other"
    numbers_of: tuple[tuple[object, ...], tuple[object, ...]] = ((protocol,), (protocol,))
    if "type" in numbers:
        kind = "icmp"
        query, identifier = numbers["type"], numbers.get("id", 0)
        reply = query + 1 if query in (13, 15, 17, 128) else 0
        numbers_of = ((query, identifier), (reply, identifier))
    elif "sport" in numbers:
        kind = "ports"
        ports = numbers["sport"], numbers["dport"]
        numbers_of = ((protocol, *ports), (protocol, *ports[::-1]))
    both_ways = zip((ends, ends[::-1]), numbers_of, strict=True)
    opener, reply_packet = (" . ".join(map(str, (*addresses, *numbers))) for addresses, numbers in both_ways)
    return kind, (opener, reply_packet)


def _selection(connection: Connection) -> str:
    """Return conntrack's options that select a connection by its opener."""
    parts = [f"-f ipv{connection.family} -p {connection.protocol} -s {connection.source} -d {connection.destination}"]
    if connection.protocol in (ICMP, ICMPV6):
        name = "icmp" if connection.protocol == ICMP else "icmpv6"
        parts += [f"--{name}-{key} {number}" for key, number in connection.numbers.items()]
    elif connection.protocol in PORT_PROTOCOLS:
        parts += [f"--{key} {number}" for key, number in connection.numbers.items()]
    return " ".join(parts)
