"""Describe the changed connections that the core counted, by filter, service, peers and rules.

    rows of ``core.changed`` -> kinds of traffic, as the blocking policy sees them -> groups of kinds
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sgfast.core.diff.changed_connections import ChangedConnections
from sgfast.core.dtypes import HEADER_DTYPE
from sgfast.engine import REASONS, VERDICTS, Engine
from sgfast.policy.model import Instance
from sgfast.questions.comparing.kinds import ChangedKinds, fill_ends, kinds_of_rows
from sgfast.questions.comparing.results import LISTED_PEERS, ChangedGroup, Example, Judgement, NewVerdict
from sgfast.questions.comparing.rules import NO_SIDE_THERE, winners
from sgfast.questions.replaying import Service

Rows = NDArray[Any]

_PASSES = tuple(verdict not in ("deny", "moot") for verdict in VERDICTS)
#: The reasons of denials by rules. Such a denial is attributed to the side whose rules deny.
_BY_RULES = ("no-rule", "deny-rule", "opener-denied", "reply-denied")
_REPLY_DENIED = REASONS.index("reply-denied")
EXAMPLES = 3


@dataclass(slots=True)
class _Gathering:
    """An unfinished group."""

    rows: list[int] = field(default_factory=list)
    peers: Counter[str] = field(default_factory=Counter)


def changed_groups(
    changed: ChangedConnections, old: Engine, new: Engine
) -> tuple[list[tuple[ChangedGroup, int, int]], dict[NewVerdict, ChangedKinds]]:
    """Return the groups, most important first, each with the numbers of the deciding rules of OLD and NEW (-1: none),
    and all kinds of changed connections. A connection is in no group if there was no room for its addresses."""
    engines = (old, new)
    counted = changed.rows
    # The policy that blocks (0: OLD, 1: NEW). The report names its filter. It may see the other end as the opener.
    all_blocks = np.array(_PASSES)[counted["old"] & 7].astype(np.int8)
    is_known = counted["family"] > 0
    rows, blocks = counted[is_known], all_blocks[is_known]
    won = [
        _winners(engine, rows, turned=(rows["turned"] == 1) & (blocks == number), word="new" if number else "old")
        for number, engine in enumerate(engines)
    ]
    names: dict[str, int] = {}
    ends_and_rules: list[tuple[int, ...]] = []
    gathered: dict[tuple[Any, ...], _Gathering] = {}
    for n, row in enumerate(rows):
        blocking = int(blocks[n])
        side = _side(engines[blocking], row["new" if blocking else "old"], won[blocking][n], row["inward"])
        judgements, rules = [], []
        for number, engine in enumerate(engines):
            word = int(row["new" if number else "old"])
            named = _named(engine, word, won[number][n], side)
            judgements.append(Judgement(VERDICTS[word & 7], REASONS[word >> 3], *(_id(engine, rule) for rule in named)))
            # Take the rule of the same filter. It is at the other side if the other end is the opener.
            rules.append(named[side if number == blocking else side ^ int(row["turned"])])
        ends = [_address(row, end) for end in ("initiator", "responder")]
        if row["turned"]:
            ends.reverse()
        here, peer = (_owner(engines[blocking], end) for end in (ends[side], ends[1 - side]))
        key = (
            blocking, here.name if here is not None else "", side, _service_key(row),
            peer.security_groups if peer is not None else (), *judgements, *rules,
        )  # fmt: skip
        gathering = gathered.setdefault(key, _Gathering())
        gathering.rows.append(n)
        gathering.peers[str(ip_address(ends[1 - side])) if peer is None else peer.name] += int(row["connections"])
        numbers = [-1 if end is None else names.setdefault(end.name, len(names)) for end in (here, peer)]
        ends_and_rules.append((side, *numbers, rules[blocking], rules[1 - blocking]))
    kinds = kinds_of_rows(counted, all_blocks)
    fill_ends(kinds, is_known, rows, np.array(ends_and_rules, dtype=np.int32).reshape(-1, 5))
    groups = [(_group(key, gathering, rows, engines), *key[-2:]) for key, gathering in gathered.items()]
    ids = [[rule.id for rule in engine.rules] for engine in engines]
    ways: tuple[tuple[NewVerdict, int], ...] = (("newly-denied", 1), ("newly-allowed", 0))
    by_verdict = {
        verdict: ChangedKinds(kinds[all_blocks == blocking], [*names], ids[blocking], passing_rules=ids[1 - blocking])
        for verdict, blocking in ways
    }
    return sorted(groups, key=lambda item: importance(item[0])), by_verdict


def _winners(engine: Engine, rows: Rows, *, turned: NDArray[np.bool_], word: str) -> Rows:
    """Return the winning rules of openers at both sides; of denied replies (SPEC 4.13), those of the reply. A stateful
    side lets replies pass.
    """
    classifier = engine.compiled.classifier
    won = winners(classifier, _openers(rows, turned=turned))
    denied = np.flatnonzero(rows[word] >> 3 == _REPLY_DENIED)
    if not len(denied):
        return won
    replies = _openers(rows[denied], turned=np.ones(len(denied), dtype=bool))
    replies["dport"] = rows["example_port"][denied, 0]
    icmp_type = replies["icmp_type"]
    replies["icmp_type"] = np.where(replies["has_icmp"], np.where(icmp_type == 8, 0, icmp_type + 1), 0)
    # The reply leaves the side of the opener's responder.
    of_replies = winners(classifier, replies)[:, ::-1]
    loose = {group.name for group in engine.policy.security_groups if not group.stateful}
    for side, end in enumerate(("initiator", "responder")):
        owners = [_owner(engine, _address(row, end)) for row in rows[denied]]
        judged = np.array([owner is not None and not loose.isdisjoint(owner.security_groups) for owner in owners])
        won[denied[judged], side] = of_replies[judged, side]
    return won


def _openers(rows: Rows, turned: NDArray[np.bool_]) -> Rows:
    openers = np.zeros(len(rows), dtype=HEADER_DTYPE)
    openers["src"] = np.where(turned[:, None], rows["responder"], rows["initiator"])
    openers["dst"] = np.where(turned[:, None], rows["initiator"], rows["responder"])
    for name in ("family", "protocol", "has_ports", "has_icmp"):
        openers[name] = rows[name]
    openers["dport"] = np.where(rows["has_ports"], np.where(turned, rows["turned_port"], rows["port_key"]), 0)
    icmp = np.where(rows["has_icmp"], rows["port_key"], 0)
    openers["icmp_type"], openers["icmp_code"] = icmp >> 8, icmp & 255
    return openers


def _side(engine: Engine, word: int, won: Any, inward: bool) -> Literal[0, 1]:
    """Return the side that blocks: 0 for the opener's side, else 1. ``inward``: side 1 judged first (SPEC 3.7, 9.3)."""
    egress, ingress = won
    if NO_SIDE_THERE in (egress, ingress):
        return 1 if egress == NO_SIDE_THERE else 0
    reason = REASONS[int(word) >> 3]
    if reason in _BY_RULES:
        denies = [number < 0 or engine.rules[number].action == "deny" for number in won]
        return 1 if denies[1] and (inward or not denies[0]) else 0
    # Denials that precede all rules are attributed to the first side (SPEC 10.3), denials that depend on a connection
    # to the responder's side.
    return 0 if reason in ("vpc-isolated", "infrastructure") else 1


def _named(engine: Engine, word: int, won: Any, side: int) -> tuple[int, int]:
    """Return the numbers of the deciding rules at the egress and the ingress side; -1 for no rule."""
    verdict, reason = VERDICTS[word & 7], REASONS[word >> 3]
    allowing = [int(n) if n >= 0 and engine.rules[n].action == "allow" else -1 for n in won]
    if verdict == "allow":
        return allowing[0], allowing[1]
    if reason not in _BY_RULES:
        return -1, -1
    denying = max(int(won[side]), -1)
    return (denying, -1) if side == 0 else (allowing[0], denying)      # the egress side judged first


def _id(engine: Engine, number: int) -> str | None:
    return engine.rules[number].id if number >= 0 else None


def _address(row: Any, end: str) -> bytes:
    packed: bytes = row[end][: 16 if row["family"] == 6 else 4].tobytes()
    return packed


def _owner(engine: Engine, packed: bytes) -> Instance | None:
    number = engine.compiled.classifier.owner_of(packed)
    return engine.instances[number] if number >= 0 else None


def _service_key(row: Any) -> tuple[int, int | None, int | None]:
    """Return the protocol, the port, and ICMP type and code as one number."""
    key = int(row["port_key"])
    return int(row["protocol"]), key if row["has_ports"] else None, key if row["has_icmp"] else None


def _group(key: tuple[Any, ...], gathering: _Gathering, rows: Rows, engines: tuple[Engine, Engine]) -> ChangedGroup:
    blocking, instance, side, (protocol, port, icmp), peer_groups, old, new, old_rule, new_rule = key
    own_rows = rows[gathering.rows]
    verdict: NewVerdict = "newly-denied" if blocking else "newly-allowed"
    listed = sorted(gathering.peers.items(), key=lambda item: (-item[1], item[0]))[:LISTED_PEERS]
    return ChangedGroup(
        verdict,
        Service(instance, protocol, port, *((None, None) if icmp is None else (icmp >> 8, icmp & 255))),
        "inbound" if side else "outbound",
        peer_groups,
        tuple(name for name, _ in listed),
        len(gathering.peers),
        old,
        new,
        _id(engines[0], old_rule),
        _id(engines[1], new_rule),
        int(own_rows["connections"].sum()),
        int(own_rows["answered"].sum()),
        int(own_rows["packets"].sum()),
        int(own_rows["bytes"].sum()),
        int(own_rows["first_ns"].min()),
        int(own_rows["last_ns"].max()),
        _examples(own_rows),
    )


def _examples(rows: Rows) -> tuple[Example, ...]:
    examples = []
    for row in rows[np.argsort(rows["example_packet"][:, 0], kind="stable")[:EXAMPLES]]:
        initiator, responder = (str(ip_address(_address(row, end))) for end in ("initiator", "responder"))
        has_ports = bool(row["has_ports"])
        for packet, time_ns, port in zip(row["example_packet"], row["example_ns"], row["example_port"], strict=True):
            if packet:
                examples.append(
                    Example(
                        int(packet), int(time_ns), initiator, int(port) if has_ports else None,
                        responder, int(row["port_key"]) if has_ports else None,
                    )
                )  # fmt: skip
    return tuple(sorted(examples, key=lambda example: example.packet)[:EXAMPLES])


def importance(group: ChangedGroup) -> tuple[Any, ...]:
    """Return a sort key that puts the most important group first."""
    service = group.service
    numbers = (service.protocol, service.port, service.icmp_type, service.icmp_code)
    return (
        group.change != "newly-denied", -group.answered, -group.connections, -group.packets, service.instance,
        *(-1 if number is None else number for number in numbers), group.direction, group.first_time_ns,
        group.peer_groups, group.peers, str(group.old), str(group.new),
    )  # fmt: skip
